//! The messages of `envoy.service.auth.v3.Authorization`, by the numbers of their fields.

use std::net::IpAddr;

use weir_abi::protobuf::{Value, bytes, fields, put_bytes, put_varint};
use weir_sdk::{Error, Result};

use crate::decision::{Decision, Edit, Edits, How, denial, may_edit};

/// What the service is told of a request.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) source: Peer,
    pub(crate) destination: Peer,
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) id: String,
    pub(crate) method: String,
    /// Each once, in lower case, with all of its values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) scheme: String,
    pub(crate) size: Option<u64>,
    pub(crate) protocol: String,
    pub(crate) body: Option<Body>,
    pub(crate) extensions: Vec<(String, String)>,
    /// The server name of TLS, when it is to be told.
    pub(crate) server_name: Option<String>,
}

/// Who is at an end of the connection.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) address: Option<(IpAddr, u16)>,
    pub(crate) principal: String,
    pub(crate) certificate: String,
}

/// A body.
#[derive(Debug)]
pub(crate) enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

/// A text, which is left out when it is empty.
fn put_text(number: u64, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        put_bytes(number, text.as_bytes(), out);
    }
}

/// A message within another.
fn put(number: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    put_bytes(number, &inner, out);
}

fn put_map(number: u64, entries: &[(String, String)], out: &mut Vec<u8>) {
    for (key, value) in entries {
        put(number, out, |entry| {
            put_text(1, key, entry);
            put_text(2, value, entry);
        });
    }
}

impl Peer {
    /// `AttributeContext.Peer`
    fn write(&self, out: &mut Vec<u8>) {
        if let Some((address, port)) = self.address {
            put(1, out, |out| {
                put(1, out, |socket| {
                    put_text(2, &address.to_string(), socket);
                    put_varint(3, port.into(), socket);
                });
            });
        }
        put_text(4, &self.principal, out);
        put_text(5, &self.certificate, out);
    }
}

impl Facts {
    /// `CheckRequest`
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(1, &mut out, |attributes| {
            put(1, attributes, |source| self.source.write(source));
            put(2, attributes, |destination| self.destination.write(destination));
            put(4, attributes, |request| {
                put(1, request, |time| {
                    put_varint(1, self.time / 1_000_000_000, time);
                    put_varint(2, self.time % 1_000_000_000, time);
                });
                put(2, request, |http| self.write_http(http));
            });
            put_map(10, &self.extensions, attributes);
            if let Some(name) = &self.server_name {
                put(12, attributes, |session| put_text(1, name, session));
            }
        });
        out
    }

    /// `AttributeContext.HttpRequest`
    fn write_http(&self, out: &mut Vec<u8>) {
        put_text(1, &self.id, out);
        put_text(2, &self.method, out);
        put_map(3, &self.headers, out);
        put_text(4, &self.path, out);
        put_text(5, &self.host, out);
        put_text(6, &self.scheme, out);
        // What is not known is -1, of 64 bits.
        put_varint(9, self.size.unwrap_or(u64::MAX), out);
        put_text(10, &self.protocol, out);
        match &self.body {
            Some(Body::Text(text)) => put_text(11, text, out),
            Some(Body::Bytes(bytes)) => put_bytes(12, bytes, out),
            None => {}
        }
    }
}

/// What a message holds, field by field.
fn each<'a>(message: &'a [u8], mut take: impl FnMut(u64, Value<'a>) -> Result<()>) -> Result<()> {
    for field in fields(message) {
        let (number, value) = field.map_err(|_| malformed())?;
        take(number, value)?;
    }
    Ok(())
}

fn malformed() -> Error {
    Error::new("the service's answer is malformed")
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed())
}

/// `CheckResponse`
///
/// # Errors
/// When it is none. Nothing is allowed by an answer that cannot be read.
pub(crate) fn read(message: &[u8]) -> Result<Decision> {
    let (mut status, mut denied, mut allowed) = (0, None, None);
    each(message, |number, value| {
        match (number, value) {
            (1, Value::Bytes(inner)) => status = code(inner)?,
            (2, Value::Bytes(inner)) => (denied, allowed) = (Some(inner), None),
            (3, Value::Bytes(inner)) => (denied, allowed) = (None, Some(inner)),
            (1..=3, _) => return Err(malformed()),
            _ => {}
        }
        Ok(())
    })?;
    match (status, denied) {
        // A status that is not there is OK, as in Envoy.
        (0, None) => read_allowed(allowed.unwrap_or_default()).map(Decision::Allow),
        (0, Some(_)) => Err(Error::new("the service allows and denies in one answer")),
        (_, denied) => read_denied(denied.unwrap_or_default()),
    }
}

/// `google.rpc.Status`
fn code(message: &[u8]) -> Result<u64> {
    let mut code = 0;
    each(message, |number, value| {
        if let (1, Value::Varint(value)) = (number, value) {
            code = value;
        }
        Ok(())
    })?;
    Ok(code)
}

/// `DeniedHttpResponse`
fn read_denied(message: &[u8]) -> Result<Decision> {
    let (mut status, mut headers, mut body) = (FORBIDDEN, Vec::new(), Vec::new());
    each(message, |number, value| {
        match (number, value) {
            // An HttpStatus has its code where a Status has.
            (1, Value::Bytes(inner)) => status = code(inner)?,
            (2, Value::Bytes(inner)) => headers.extend(header(inner)?),
            (3, Value::Bytes(inner)) => body = inner.to_vec(),
            _ => {}
        }
        Ok(())
    })?;
    let status = denial(if status == 0 { FORBIDDEN } else { status })?;
    Ok(Decision::Deny { status, headers, body })
}

const FORBIDDEN: u64 = 403;

/// `OkHttpResponse`
fn read_allowed(message: &[u8]) -> Result<Edits> {
    let mut edits = Edits::default();
    each(message, |number, value| {
        match (number, value) {
            (2, Value::Bytes(inner)) => edits.headers.extend(header(inner)?),
            (5, Value::Bytes(name)) => edits.remove.push(text(name)?),
            (6, Value::Bytes(inner)) => edits.response.extend(header(inner)?),
            (7, Value::Bytes(inner)) => {
                let part = |number| text(bytes(inner, number).unwrap_or_default());
                edits.query_set.push((part(1)?, part(2)?));
            }
            (8, Value::Bytes(name)) => edits.query_remove.push(text(name)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(edits)
}

/// `HeaderValueOption`; `None` for a header that a service has no say about, or one without a value.
fn header(message: &[u8]) -> Result<Option<Edit>> {
    let (mut name, mut value, mut how, mut keep_empty) = (String::new(), Vec::new(), None, false);
    each(message, |number, field| {
        match (number, field) {
            (1, Value::Bytes(inner)) => {
                name = text(bytes(inner, 1).unwrap_or_default())?;
                value = bytes(inner, 3).or_else(|| bytes(inner, 2)).unwrap_or_default().to_vec();
            }
            // The older `append` has the last word, as in Envoy.
            (2, Value::Bytes(inner)) => how = Some(if code(inner)? == 0 { How::Set } else { How::Add }),
            (3, Value::Varint(action)) if how.is_none() => {
                how = match action {
                    1 => Some(How::AddIfAbsent),
                    2 => Some(How::Set),
                    3 => Some(How::SetIfThere),
                    // It is also what stands there when nothing does.
                    _ => None,
                }
            }
            (4, Value::Varint(yes)) => keep_empty = yes != 0,
            _ => {}
        }
        Ok(())
    })?;
    let wanted = may_edit(&name) && (keep_empty || !value.is_empty());
    Ok(wanted.then(|| Edit { name, value, how: how.unwrap_or(How::Set) }))
}

#[cfg(test)]
mod tests;
