//! What there is for each context or call, by its number.
//!
//! Every filter has such a table, and the one of the standard library weighs as much as half of a small filter's own code:
//! it is made for keys of any kind that anybody may choose. These are numbers that the host counts up.

/// By context id, or by token. Open addressing, with the entries in the slots themselves.
pub(crate) struct ById<T> {
    /// Their number is none or a power of two, and a quarter of them is free.
    slots: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> ById<T> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(self.find(id)?)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = self.find(id)?;
        self.slots.get_mut(at)?.as_mut().map(|(_, value)| value)
    }

    /// Puts a value in the place of the one that was there, if any.
    pub(crate) fn insert(&mut self, id: u32, value: T) {
        if self.len * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        self.put(id, value);
    }

    /// The value that is there, or else the one that is made.
    pub(crate) fn get_or_insert_with(&mut self, id: u32, make: impl FnOnce() -> T) -> Option<&mut T> {
        if self.get(id).is_none() {
            self.insert(id, make());
        }
        self.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let mut hole = self.find(id)?;
        let (_, value) = self.slots.get_mut(hole)?.take()?;
        self.len -= 1;
        // Whoever stands behind and was kept from here moves up, so that a free slot ends every search (Knuth, The Art of
        // Computer Programming 6.4, algorithm R).
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(Some((there, _))) = self.slots.get(at) else { break };
            let home = self.home(*there);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                let moved = self.slots.get_mut(at).and_then(Option::take);
                if let Some(slot) = self.slots.get_mut(hole) {
                    *slot = moved;
                }
                hole = at;
            }
        }
        Some(value)
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The slot where the search for an id begins. Fibonacci hashing: neighbours go far apart.
    fn home(&self, id: u32) -> usize {
        let spread = u64::from(id.wrapping_mul(0x9e37_79b9)) * self.slots.len() as u64;
        (spread >> 32) as usize
    }

    /// The slot that holds an id, or the free one where it would stand. `None` as long as there are no slots.
    fn find(&self, id: u32) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = self.home(id);
        while let Some(Some((there, _))) = self.slots.get(at)
            && *there != id
        {
            at = (at + 1) & mask;
        }
        Some(at)
    }

    fn put(&mut self, id: u32, value: T) {
        let Some(at) = self.find(id) else { return };
        if let Some(slot) = self.slots.get_mut(at)
            && slot.replace((id, value)).is_none()
        {
            self.len += 1;
        }
    }

    fn grow(&mut self) {
        let mut larger = Self::new();
        larger.slots.resize_with((self.slots.len() * 2).max(8), || None);
        std::mem::swap(self, &mut larger);
        larger.slots.into_iter().flatten().for_each(|(id, value)| self.put(id, value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_holds_what_a_map_of_the_standard_library_holds_after_whatever_was_done_to_both() {
        let (mut ours, mut theirs) = (ById::new(), HashMap::new());
        let mut random = 1_u32;
        for step in 0..200_000_u32 {
            // xorshift, so that each run is the same
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            // It fills, and empties again, and neighbours are in the way of each other.
            let id = random % if step % 20_000 < 10_000 { 3000 } else { 50 };
            if random & 0x10_0000 == 0 {
                ours.insert(id, step);
                theirs.insert(id, step);
            } else {
                assert_eq!(ours.remove(id), theirs.remove(&id), "{step}");
            }
            assert_eq!((ours.get(id), ours.len()), (theirs.get(&id), theirs.len()), "{step}");
        }
        (0..3000).for_each(|id| assert_eq!(ours.get_mut(id).copied(), theirs.get(&id).copied()));
    }

    #[test]
    fn what_is_there_already_is_not_made_anew() {
        let mut table = ById::new();
        assert_eq!(table.get_or_insert_with(7, || 1).copied(), Some(1));
        assert_eq!(table.get_or_insert_with(7, || panic!("it is there")).copied(), Some(1));
        assert_eq!(table.get(8), None);
        assert_eq!(table.remove(8), None);
    }

    #[test]
    fn ids_that_are_counted_up_find_their_slots_at_once() {
        let mut table = ById::new();
        (1..=100_000_u32).for_each(|id| table.insert(id, ()));
        let far = (1..=100_000).map(|id| {
            let mask = table.slots.len() - 1;
            table.find(id).expect("slots").wrapping_sub(table.home(id)) & mask
        });
        let far: Vec<usize> = far.collect();
        assert!(far.iter().sum::<usize>() < 100_000, "less than one step for each");
        assert!(far.iter().all(|steps| *steps < 16));
    }
}
