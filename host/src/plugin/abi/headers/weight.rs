//! How much a guest may make of one map, and what the map weighs by now.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use weir_abi::{MapKind, Status};

/// What a guest may make of one map: fields, and bytes of names and values. Above what any peer takes that is usual (Chrome takes 256 KiB),
/// and four times what Weir does.
const MOST_FIELDS: usize = 1024;
pub(super) const MOST_BYTES: usize = 256 << 10;

/// What it takes a worker to encode a byte that a guest has added, and to hand it to the kernel, in nanoseconds: half a
/// millisecond for a map that is as large as it may be.
const CARRIAGE: u64 = 2;

/// What it takes to carry so many bytes, in nanoseconds: it is billed to whoever adds them, where they are added. By then
/// nobody knows whose they are.
pub(super) fn carriage(bytes: usize) -> u64 {
    CARRIAGE.saturating_mul(bytes as u64)
}

/// What the map weighs that was added to last, in bytes of names and values, as long as nothing else has been done to it: whoever
/// adds a thousand headers is not to have the map looked through a thousand times.
#[derive(Debug, Default)]
pub struct Weighed(Option<(u32, MapKind, usize)>);

impl Weighed {
    /// Takes what is known of a map of a context, which is nothing from then on.
    pub(super) fn take(&mut self, context: u32, map: MapKind) -> Option<usize> {
        self.0.take().filter(|(owner, kind, _)| (*owner, *kind) == (context, map)).map(|(_, _, bytes)| bytes)
    }

    /// Keeps what is known of a map of a context.
    pub(super) fn keep(&mut self, context: u32, map: MapKind, weight: Option<usize>) {
        self.0 = weight.map(|bytes| (context, map, bytes));
    }

    /// A call into the guest begins: maps may have changed since.
    #[inline]
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

/// Puts a header in the place of all of its name. Otherwise it is as [`add`].
pub(super) fn replace(
    headers: &mut HeaderMap,
    weight: &mut Option<usize>,
    name: HeaderName,
    value: HeaderValue,
) -> Result<usize, Status> {
    let more = name.as_str().len() + value.len();
    if matters(headers, *weight, more) {
        if headers.remove(&name).is_some() {
            *weight = None;
        }
        return add(headers, weight, name, value);
    }
    let added = match headers.try_entry(name).map_err(|_| Status::BadArgument)? {
        Entry::Vacant(place) => place.try_insert(value).map(drop),
        // It goes to the end, as in Envoy.
        Entry::Occupied(known) => {
            let (name, _) = known.remove_entry();
            headers.try_append(name, value).map(drop)
        }
    };
    added.map(|()| more).map_err(|_| Status::BadArgument)
}

/// Fields, and bytes of one, from which on it matters what a map weighs: with less of both it cannot be too large.
const MANY: usize = 64;
const LARGE: usize = MOST_BYTES / MANY;

/// Whether a map is to be weighed before a header of so many bytes is added: only where it could matter.
fn matters(headers: &HeaderMap, weight: Option<usize>, more: usize) -> bool {
    weight.is_some() || headers.len() >= MANY || more >= LARGE
}

/// Adds a header, as long as the map stays within bounds: it is the host's memory, and `http` panics on a map that is
/// far too large. `weight`: what the map weighs, where that is known; it is from then on. What is returned is what was added,
/// in bytes.
pub(super) fn add(
    headers: &mut HeaderMap,
    weight: &mut Option<usize>,
    name: HeaderName,
    value: HeaderValue,
) -> Result<usize, Status> {
    let more = name.as_str().len() + value.len();
    let bytes = matters(headers, *weight, more).then(|| weight.unwrap_or_else(|| of(headers)) + more);
    if headers.len() >= MOST_FIELDS || bytes.is_some_and(|bytes| bytes > MOST_BYTES) {
        return Err(Status::BadArgument);
    }
    headers.try_append(name, value).map_err(|_| Status::BadArgument)?;
    *weight = bytes;
    Ok(more)
}

fn of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize, len: usize) -> (HeaderName, HeaderValue) {
        let name = HeaderName::from_bytes(format!("x-{number}").as_bytes()).expect("a name");
        (name, HeaderValue::from_bytes(&vec![b'x'; len]).expect("a value"))
    }

    #[test]
    fn a_map_is_looked_through_once_however_much_is_added_to_it() {
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        for number in 0..65 {
            let (name, value) = pair(number, 10);
            add(&mut headers, &mut weight, name, value).expect("there is room");
        }
        assert_eq!(weight, Some(of(&headers)));
        // It is believed from then on: to count again would find that there is room.
        weight = Some(MOST_BYTES - 13);
        let (name, value) = pair(65, 10);
        assert_eq!(add(&mut headers, &mut weight, name.clone(), value.clone()), Err(Status::BadArgument));
        weight = Some(MOST_BYTES - 14);
        add(&mut headers, &mut weight, name.clone(), value.clone()).expect("there is room");
        assert_eq!(add(&mut headers, &mut weight, name.clone(), value.clone()), Err(Status::BadArgument));
        // What is not known is counted.
        add(&mut headers, &mut None, name, value).expect("there is room");
    }

    #[test]
    fn what_is_added_is_to_be_paid_for_by_the_byte_and_what_is_refused_is_not() {
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        let (name, value) = pair(1, MOST_BYTES - 4);
        let added = add(&mut headers, &mut weight, name.clone(), value.clone()).map(carriage);
        assert_eq!(added, Ok(524_286), "half a millisecond for as much as may be");
        assert_eq!(add(&mut headers, &mut weight, name, value).map(carriage), Err(Status::BadArgument));
    }

    #[test]
    fn a_map_has_so_many_fields_and_so_many_bytes() {
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        let added = (0..).take_while(|number| {
            let (name, value) = pair(*number, 10);
            add(&mut headers, &mut weight, name, value).is_ok()
        });
        assert_eq!(added.count(), MOST_FIELDS);
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        let (name, value) = pair(1, MOST_BYTES - 4);
        assert_eq!(add(&mut headers, &mut weight, name.clone(), value.clone()), Ok(MOST_BYTES - 1));
        assert_eq!(add(&mut headers, &mut weight, name, value), Err(Status::BadArgument));
        assert_eq!((headers.len(), of(&headers)), (1, MOST_BYTES - 1));
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        let added = (0..).take_while(|number| {
            let (name, value) = pair(*number, 32 << 10);
            add(&mut headers, &mut weight, name, value).is_ok()
        });
        assert_eq!(added.count(), 7, "256 KiB in large pieces, with their names");
        let (mut headers, mut weight) = (HeaderMap::new(), None);
        let long_name =
            |number| HeaderName::from_bytes(format!("{number}-{}", "x".repeat(30 << 10)).as_bytes());
        let added = (0..).take_while(|number| {
            let name = long_name(*number).expect("a name");
            add(&mut headers, &mut weight, name, HeaderValue::from_static("")).is_ok()
        });
        assert_eq!(added.count(), 8, "names weigh as much as values do");
    }

    #[test]
    fn what_is_known_is_of_one_map_of_one_context_and_until_it_is_taken() {
        let mut weighed = Weighed::default();
        let (request, response) = (MapKind::HttpRequestHeaders, MapKind::HttpResponseHeaders);
        weighed.keep(7, request, Some(5));
        assert_eq!((weighed.take(7, request), weighed.take(7, request)), (Some(5), None));
        for (context, map) in [(8, request), (7, response)] {
            weighed.keep(7, request, Some(5));
            assert_eq!((weighed.take(context, map), weighed.take(7, request)), (None, None));
        }
        weighed.keep(7, request, Some(5));
        weighed.forget();
        assert_eq!(weighed.take(7, request), None);
    }
}
