//! Filter state: values that filters leave on a stream, for themselves, for each other and for Weir.

use bytes::Bytes;
use weir_abi::Status;

/// The values of one stream, by key. A guest's own properties have keys below `wasm.`.
#[derive(Debug, Default)]
pub struct FilterState {
    entries: Vec<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    value: Bytes,
    readonly: bool,
}

/// What one stream may hold, keys included. Guests fill it, and it is the host's memory.
const MOST_ENTRIES: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// Below what a guest's own properties are kept, so that they can hide nothing of the host's.
const OWN: &[u8] = b"wasm.";

impl FilterState {
    /// A value by its whole key.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.iter().find(|entry| *entry.key == *key).map(|entry| &entry.value)
    }

    /// A guest's own property.
    pub fn own(&self, path: &[u8]) -> Option<&Bytes> {
        let own = |entry: &&Entry| entry.key.strip_prefix(OWN) == Some(path);
        self.entries.iter().find(own).map(|entry| &entry.value)
    }

    /// All values, by their whole keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        self.entries.iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// Sets a value.
    ///
    /// # Errors
    /// As [`FilterState::set_own`].
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Status> {
        self.put(&[], key, value, false)
    }

    /// Sets a guest's own property. One that is `readonly` when it is first set stays as it is.
    ///
    /// # Errors
    /// [`Status::BadArgument`] when it is read-only; [`Status::InternalFailure`] when the stream holds 1024 values or
    /// 1 MiB.
    pub fn set_own(&mut self, path: &[u8], value: &[u8], readonly: bool) -> Result<(), Status> {
        self.put(OWN, path, value, readonly)
    }

    fn put(&mut self, prefix: &[u8], key: &[u8], value: &[u8], readonly: bool) -> Result<(), Status> {
        let same = |entry: &&mut Entry| entry.key.strip_prefix(prefix) == Some(key);
        let full = self.entries.len() >= MOST_ENTRIES;
        let known = self.entries.iter_mut().find(same);
        let (before, more) = match &known {
            Some(entry) if entry.readonly => return Err(Status::BadArgument),
            Some(entry) => (entry.value.len(), value.len()),
            None => (0, prefix.len() + key.len() + value.len()),
        };
        let bytes = self.bytes - before + more;
        if bytes > MOST_BYTES {
            return Err(Status::InternalFailure);
        }
        let value = Bytes::copy_from_slice(value);
        match known {
            Some(entry) => entry.value = value,
            None if full => return Err(Status::InternalFailure),
            None => self.entries.push(Entry { key: [prefix, key].concat().into(), value, readonly }),
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_holds_so_many_values_and_bytes_and_no_more() {
        let mut state = FilterState::default();
        for key in 0..MOST_ENTRIES {
            state.set_own(key.to_string().as_bytes(), b"x", false).expect("there is room");
        }
        assert_eq!(state.set_own(b"one more", b"x", false), Err(Status::InternalFailure));
        assert_eq!(state.set_own(b"7", b"y", false), Ok(()), "one that is there can change");

        let (mut state, large) = (FilterState::default(), vec![0; MOST_BYTES - 6]);
        assert_eq!(state.set(b"large", &large), Ok(()));
        assert_eq!(state.set(b"k", b"xx"), Err(Status::InternalFailure));
        assert_eq!(state.set(b"large", b""), Ok(()), "what is given back can be used again");
        assert_eq!(state.set(b"k", &large), Ok(()));
    }

    #[test]
    fn a_read_only_property_is_set_once() {
        let mut state = FilterState::default();
        assert_eq!(state.set_own(b"own", b"one", true), Ok(()));
        assert_eq!(state.set_own(b"own", b"two", false), Err(Status::BadArgument));
        assert_eq!(state.own(b"own").map(|value| &**value), Some(&b"one"[..]));
        assert_eq!(state.get(b"wasm.own"), state.own(b"own"));
    }
}
