//! Bodies, and the data of connections.

use weir_abi::BufferKind;

use crate::error::{Explain, Result};
use crate::raw;

/// What is here of a body, or of the data of a connection: the piece that has just come, or, while the filter
/// holds it, all that has been gathered.
#[derive(Debug)]
pub struct Body {
    kind: BufferKind,
    len: usize,
    last: bool,
}

impl Body {
    pub(crate) fn new(kind: BufferKind, len: u32, last: u32) -> Self {
        Self { kind, len: len as usize, last: last != 0 }
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

    /// A copy of the bytes.
    ///
    /// # Errors
    /// When the host does not give them.
    pub fn read(&self) -> Result<Vec<u8>> {
        self.read_range(0, self.len)
    }

    /// A copy of some of the bytes: `max_len` from `start` on, or what there is of them.
    ///
    /// # Errors
    /// When the host does not give them.
    pub fn read_range(&self, start: usize, max_len: usize) -> Result<Vec<u8>> {
        if self.len == 0 || max_len == 0 {
            return Ok(Vec::new());
        }
        raw::buffer(self.kind, start, max_len).explain(|| format!("reading {:?}", self.kind))
    }

    /// Replaces all bytes.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn replace(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        raw::set_buffer(self.kind, 0, u32::MAX, bytes).explain(|| format!("replacing {:?}", self.kind))?;
        self.len = bytes.len();
        Ok(())
    }

    /// Puts bytes before the others.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn prepend(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        raw::set_buffer(self.kind, 0, 0, bytes).explain(|| format!("prepending to {:?}", self.kind))?;
        self.len += bytes.len();
        Ok(())
    }

    /// Puts bytes after the others.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn append(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let end = u32::try_from(self.len).unwrap_or(u32::MAX);
        raw::set_buffer(self.kind, end, 0, bytes).explain(|| format!("appending to {:?}", self.kind))?;
        self.len += bytes.len();
        Ok(())
    }
}
