//! What a service has decided, and what becomes of the request then.

use filter_parts::carried::{query_with, query_without};
use filter_parts::text::is_token;
use weir_sdk::{Error, Reply, Request, Response, Result};

/// A header that the service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
    pub(crate) how: How,
}

/// What becomes of what a header was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is replaced.
    Set,
    /// It stays, and the new value is another one.
    Add,
    /// It stays, and the new value is not taken.
    AddIfAbsent,
    /// It is replaced, and a header that was not there is not made.
    SetIfThere,
}

/// What a service has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow(Edits),
    Deny { status: u16, headers: Vec<Edit>, body: Vec<u8> },
}

/// What becomes of a request that is allowed, and of the response to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    pub(crate) remove: Vec<String>,
    pub(crate) headers: Vec<Edit>,
    pub(crate) response: Vec<Edit>,
    pub(crate) query_set: Vec<(String, String)>,
    pub(crate) query_remove: Vec<String>,
}

/// Whether a service may have a say about a header: a request's method, path and host are not its own.
pub(crate) fn may_edit(name: &str) -> bool {
    is_token(name) && !name.eq_ignore_ascii_case("host")
}

/// The message that edits are of.
trait Message {
    fn first(&self, name: &str) -> Result<Option<String>>;
    fn set(&mut self, name: &str, value: &[u8]) -> Result<()>;
    fn add(&mut self, name: &str, value: &[u8]) -> Result<()>;
}

macro_rules! message {
    ($name:ident) => {
        impl Message for $name {
            fn first(&self, name: &str) -> Result<Option<String>> {
                self.header(name)
            }

            fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
                self.set_header(name, value)
            }

            fn add(&mut self, name: &str, value: &[u8]) -> Result<()> {
                self.add_header(name, value)
            }
        }
    };
}

message!(Request);
message!(Response);

impl Edit {
    fn apply(&self, message: &mut impl Message) -> Result<()> {
        match self.how {
            How::Set => message.set(&self.name, &self.value),
            How::Add => message.add(&self.name, &self.value),
            How::AddIfAbsent if message.first(&self.name)?.is_none() => message.set(&self.name, &self.value),
            How::SetIfThere if message.first(&self.name)?.is_some() => message.set(&self.name, &self.value),
            How::AddIfAbsent | How::SetIfThere => Ok(()),
        }
    }
}

/// Carries out what is wanted of a response.
pub(crate) fn edit_response(edits: &[Edit], response: &mut Response) -> Result<()> {
    edits.iter().try_for_each(|edit| edit.apply(response))
}

impl Edits {
    /// Carries out what is wanted of the request.
    pub(crate) fn edit_request(&self, request: &mut Request) -> Result<()> {
        for name in self.remove.iter().filter(|name| may_edit(name)) {
            request.remove_header(name)?;
        }
        for edit in &self.headers {
            edit.apply(request)?;
        }
        if self.query_remove.is_empty() && self.query_set.is_empty() {
            return Ok(());
        }
        let mut target = request.path()?;
        for name in self.query_remove.iter().chain(self.query_set.iter().map(|(name, _)| name)) {
            target = query_without(name, &target);
        }
        for (name, value) in &self.query_set {
            target = query_with(name, value, &target);
        }
        request.set_header(":path", target)
    }
}

/// The answer to a request that is denied.
pub(crate) fn reply(status: u16, headers: &[Edit], body: Vec<u8>) -> Reply {
    let reply = Reply::new(status).body(body).details("denied by the service");
    headers.iter().fold(reply, |reply, edit| reply.header(edit.name.as_str(), edit.value.as_slice()))
}

/// A status that a denial may have.
///
/// # Errors
/// When it would not tell that the request was denied.
pub(crate) fn denial(status: u64) -> Result<u16> {
    match u16::try_from(status) {
        // A redirection to a page where one can log in denies, too.
        Ok(status @ 300..=599) => Ok(status),
        _ => Err(Error::new(format!("the service denies with the status {status}"))),
    }
}
