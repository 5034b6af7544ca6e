//! The exchanges that are under way on a worker, by what their filters hold: under overload the largest are cut.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::rc::Rc;

use slab::Slab;

/// The exchanges that are under way on a worker.
#[derive(Debug, Default)]
pub struct Live(RefCell<Slab<Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// The bytes that it holds.
    held: usize,
    cut: bool,
}

/// The place of one exchange, until it is dropped.
#[derive(Debug)]
pub struct Place {
    live: Rc<Live>,
    key: usize,
}

impl Live {
    /// An exchange begins.
    pub fn enter(self: &Rc<Self>) -> Place {
        let key = self.0.borrow_mut().insert(Entry::default());
        Place { live: Rc::clone(self), key }
    }

    /// Has those be cut that hold the most, `most` of them. Those that are cut already do not count.
    pub fn cut_largest(&self, most: usize) -> usize {
        let mut entries = self.0.borrow_mut();
        let mut left: Vec<&mut Entry> =
            entries.iter_mut().map(|(_, entry)| entry).filter(|entry| !entry.cut).collect();
        left.sort_by_key(|entry| Reverse(entry.held));
        left.truncate(most);
        let count = left.len();
        left.into_iter().for_each(|entry| entry.cut = true);
        count
    }
}

impl Place {
    /// So many bytes more are held.
    pub fn hold(&self, bytes: usize) {
        self.with(|entry| entry.held += bytes);
    }

    /// So many bytes have gone on.
    pub fn release(&self, bytes: usize) {
        self.with(|entry| entry.held = entry.held.saturating_sub(bytes));
    }

    /// Whether the exchange is to be cut.
    pub fn is_cut(&self) -> bool {
        self.with(|entry| entry.cut)
    }

    fn with<T: Default>(&self, f: impl FnOnce(&mut Entry) -> T) -> T {
        // An entry lives exactly as long as its place.
        self.live.0.borrow_mut().get_mut(self.key).map(f).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.0.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hold_the_most_are_cut_first_and_each_once() {
        let live = Rc::new(Live::default());
        let places = [10, 300, 20, 200].map(|bytes| {
            let place = live.enter();
            place.hold(bytes);
            place
        });
        places[1].release(295);
        let cut = || places.each_ref().map(Place::is_cut);
        assert_eq!(live.cut_largest(2), 2);
        assert_eq!(cut(), [false, false, true, true]);
        assert_eq!(live.cut_largest(9), 2);
        assert_eq!(cut(), [true; 4]);
        drop(places);
        assert_eq!(live.cut_largest(9), 0, "those that are over are not there");
    }
}
