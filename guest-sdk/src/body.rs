//! Bodies, and the data of connections.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use serde::de::DeserializeOwned;
use weir_abi::BufferKind;

use crate::error::{Error, Explain, Result};
use crate::flow::{Flow, Wants};
use crate::raw;

/// What is here of a body, or of the data of a connection: the piece that has just come, or, while the filter
/// holds it, all that has been gathered.
///
/// In an `async fn` the rest can be awaited: as a whole by [`Body::read_all`], or piece by piece by [`Body::chunks`].
/// A body that is JSON, awaited as a whole and written anew:
///
/// ```
/// use weir_sdk::prelude::*;
///
/// struct Redact;
///
/// #[weir_sdk::http_filter]
/// impl HttpFilter for Redact {
///     fn new(_: ()) -> Result<Self> {
///         Ok(Self)
///     }
///
///     async fn on_response(&self, _: &mut Response, body: &mut Body, _: &mut ()) -> Result<Action> {
///         // One that is larger is an error, and so is one that is no JSON: both are answered with what the errors say.
///         let mut account: serde_json::Value = body.read_json(64 << 10).await?;
///         if let Some(number) = account.get_mut("card") {
///             *number = "****".into();
///         }
///         body.replace(account.to_string())?;
///         Ok(Action::Continue)
///     }
/// }
/// # fn main() {}
/// ```
///
/// Piece by piece, with no more of it in memory than a piece:
///
/// ```
/// # use weir_sdk::prelude::*;
/// # struct Shout;
/// #[weir_sdk::http_filter]
/// impl HttpFilter for Shout {
/// #   fn new(_: ()) -> Result<Self> {
/// #       Ok(Self)
/// #   }
///     async fn on_response_body(&self, body: &mut Body, _: &mut ()) -> Result<Action> {
///         let mut chunks = body.chunks();
///         while let Some(piece) = chunks.next().await? {
///             chunks.replace(piece.to_ascii_uppercase())?;
///         }
///         Ok(Action::Continue)
///     }
/// }
/// # fn main() {}
/// ```
///
/// In an `fn`, a body is the piece that has come: this one counts it, and has it go on.
///
/// ```
/// # use weir_sdk::prelude::*;
/// use weir_sdk::metrics::{Counter, Static};
///
/// static UPLOADED: Static<Counter> = Static::new("uploaded");
///
/// # struct Count;
/// #[weir_sdk::http_filter]
/// impl HttpFilter for Count {
/// #   fn new(_: ()) -> Result<Self> {
/// #       Ok(Self)
/// #   }
///     fn on_request_body(&self, body: &mut Body, _: &mut ()) -> Result<Action> {
///         UPLOADED.add(body.len() as u64);
///         Ok(Action::Continue)
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Body {
    kind: BufferKind,
    /// Where in the host's buffer it begins: what is before that has been let go.
    start: usize,
    len: usize,
    last: bool,
    /// Where more can be awaited.
    flow: Option<Rc<Flow>>,
}

impl Body {
    pub(crate) fn new(kind: BufferKind, len: u32, last: bool) -> Self {
        Self { kind, start: 0, len: len as usize, last, flow: None }
    }

    /// What has come that the filter has not been shown.
    pub(crate) fn of_flow(kind: BufferKind, flow: Rc<Flow>) -> Self {
        let mut body = Self { kind, start: 0, len: 0, last: false, flow: None };
        body.show(&flow);
        body.flow = Some(flow);
        body
    }

    /// Takes into view what has come, behind what was let go.
    fn show(&mut self, flow: &Flow) {
        self.start = flow.passed.get();
        self.len = flow.len.get().saturating_sub(self.start);
        self.last = flow.ended.get();
        flow.shown.set(flow.len.get());
        flow.end_shown.set(self.last);
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// A copy of the bytes that are here.
    ///
    /// # Errors
    /// When the host does not give them.
    pub fn read(&self) -> Result<Vec<u8>> {
        self.read_range(0, self.len)
    }

    /// A copy of some of the bytes that are here: `max_len` from `start` on, or what there is of them.
    ///
    /// # Errors
    /// When the host does not give them.
    pub fn read_range(&self, start: usize, max_len: usize) -> Result<Vec<u8>> {
        let max_len = max_len.min(self.len.saturating_sub(start));
        if max_len == 0 {
            return Ok(Vec::new());
        }
        self.get(self.start + start, max_len)
    }

    /// Awaits the whole body, and gives a copy of it. Meanwhile the host holds it, so that it can still be changed, or
    /// answered in the place of the upstream.
    ///
    /// The host has a limit of its own, by which it answers itself (`max_buffered_body` in Weir,
    /// `per_connection_buffer_limit_bytes` in Envoy).
    ///
    /// # Errors
    /// When it has more than `limit` bytes: an error that is answered with 413. When the host does not give them.
    pub async fn read_all(&mut self, limit: usize) -> Result<Vec<u8>> {
        if let Some(flow) = self.flow.clone() {
            poll_fn(|cx| {
                self.show(&flow);
                if self.last || self.len > limit {
                    return Poll::Ready(());
                }
                flow.wait(Wants::All, cx);
                Poll::Pending
            })
            .await;
        }
        if self.len > limit {
            return Err(Error::new(format!("a body of more than {limit} bytes")).reply_with(413));
        }
        self.read()
    }

    /// Awaits the whole body, as JSON.
    ///
    /// # Errors
    /// As [`Body::read_all`]; and when it is no JSON, or not what is wanted: an error that is answered with 400.
    pub async fn read_json<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T> {
        let bytes = self.read_all(limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::from(error).reply_with(400))
    }

    /// The body piece by piece, as it comes. A piece goes on when the next one is asked for.
    pub fn chunks(&mut self) -> Chunks<'_> {
        Chunks { body: self, given: false }
    }

    /// Has the headers wait, too, while a body is read in [`crate::HttpFilter::on_request`] or
    /// [`crate::HttpFilter::on_response`]: they can be edited afterwards. Otherwise they go on when the body is first
    /// awaited.
    ///
    /// This is for hosts that show the body meanwhile: the filter's configuration in Weir, or the plugin's in Envoy, must say
    /// `allow_on_headers_stop_iteration: true`. Without it no body comes, and the exchange waits in vain.
    pub fn hold_headers(&mut self) {
        if let Some(flow) = &self.flow {
            flow.with_headers.set(true);
        }
    }

    /// Replaces all bytes that are here.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn replace(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let end = self.start + self.len;
        let behind = self.flow.as_ref().map_or(0, |flow| flow.len.get().saturating_sub(end));
        let replaced = if self.start == 0 && behind == 0 {
            self.set(0, u32::MAX, bytes)
        } else {
            // Hosts replace a whole buffer, and nothing within one.
            let mut whole = if self.start == 0 { Vec::new() } else { self.get(0, self.start)? };
            whole.extend_from_slice(bytes);
            if behind > 0 {
                whole.extend(self.get(end, behind)?);
            }
            self.set(0, u32::MAX, &whole)
        };
        replaced.explain(|| format!("replacing {:?}", self.kind))?;
        self.grow(bytes.len(), self.len);
        Ok(())
    }

    /// Puts bytes before those that are here.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn prepend(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        if self.start > 0 {
            let rest = self.read()?;
            return self.replace([bytes, &rest].concat());
        }
        self.set(0, 0, bytes).explain(|| format!("prepending to {:?}", self.kind))?;
        self.grow(bytes.len(), 0);
        Ok(())
    }

    /// Puts bytes behind those that are here.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn append(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let end = self.start + self.len;
        if self.flow.as_ref().is_some_and(|flow| flow.len.get() > end) {
            let rest = self.read()?;
            return self.replace([&rest, bytes].concat());
        }
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        self.set(end, 0, bytes).explain(|| format!("appending to {:?}", self.kind))?;
        self.grow(bytes.len(), 0);
        Ok(())
    }

    fn get(&self, start: usize, len: usize) -> Result<Vec<u8>> {
        raw::buffer(self.kind, start, len).explain(|| format!("reading {:?}", self.kind))
    }

    fn set(&self, start: u32, len: u32, bytes: &[u8]) -> std::result::Result<(), weir_abi::Status> {
        raw::set_buffer(self.kind, start, len, bytes)
    }

    /// So many bytes are in the place of so many.
    fn grow(&mut self, new: usize, old: usize) {
        let changed = |len: usize| (len + new).saturating_sub(old);
        self.len = changed(self.len);
        if let Some(flow) = &self.flow {
            flow.len.set(changed(flow.len.get()));
            flow.shown.set(changed(flow.shown.get()));
        }
    }
}

/// A body, piece by piece. See [`Body::chunks`].
#[derive(Debug)]
pub struct Chunks<'a> {
    body: &'a mut Body,
    given: bool,
}

impl Chunks<'_> {
    /// Awaits the next piece; `None` behind the last one. The one before goes on.
    ///
    /// # Errors
    /// When the host does not give it.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(flow) = self.body.flow.clone() else {
            let first = !std::mem::replace(&mut self.given, true) && !self.body.is_empty();
            return if first { self.body.read().map(Some) } else { Ok(None) };
        };
        if self.given {
            flow.passed.set(flow.shown.get());
        }
        poll_fn(|cx| {
            if flow.len.get() > flow.passed.get() || flow.ended.get() {
                return Poll::Ready(());
            }
            flow.wait(Wants::Next, cx);
            Poll::Pending
        })
        .await;
        self.body.show(&flow);
        self.given = true;
        if self.body.is_empty() { Ok(None) } else { self.body.read().map(Some) }
    }

    /// Puts bytes in the place of the piece that was given last.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn replace(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.body.replace(bytes)
    }
}
