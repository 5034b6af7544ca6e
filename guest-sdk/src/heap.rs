//! The memory that a filter allocates: what `malloc` and its kin hand out.
//!
//! That of the C library is a fifth of a small filter (ADR 0021). This one is TLSF (Masmano, Ripoll, Crespo, Real: "TLSF: a
//! New Dynamic Memory Allocator for Real-Time Systems", 2004): free blocks hang in bins by their size, bits tell which bins
//! have any, and neighbours that are free are one block. So nothing here takes longer when there is more.
//!
//! A block is a word, its size in bytes with two flags, and what is handed out, whose address is divisible by 16. A free one has
//! its neighbours in the bin behind the word, and its size in its last word, where the block behind finds it. What
//! touches memory is in `memory.rs`; here are numbers only.
//!
//! Of small blocks that come back a few of each size lie on a shelf, as they are, for the next that asks for so much: most of what a
//! filter allocates is a header's value, and gone with the call. Before memory grows the shelves are cleared.

#[cfg(target_family = "wasm")]
mod memory;

#[cfg(target_family = "wasm")]
pub(crate) use memory::free;

/// What blocks lie in, by addresses. What is asked for is always within what [`Memory::grow`] gave.
pub(crate) trait Memory {
    /// The word at an address.
    fn load(&self, at: u32) -> u32;
    /// Writes a word.
    fn store(&mut self, at: u32, value: u32);
    /// Copies bytes between places that have none in common.
    fn copy(&mut self, from: u32, to: u32, len: u32);
    /// At least so many bytes more: where they begin, and where they end, which is divisible by 16.
    fn grow(&mut self, len: u32) -> Option<(u32, u32)>;
}

/// Sizes and addresses of what is handed out are multiples of it.
const UNIT: u32 = 16;
/// What a block has beside what is handed out.
const HEAD: u32 = 4;
/// It is handed out.
const USED: u32 = 1;
/// The block before it is free.
const AFTER_FREE: u32 = 2;
const FLAGS: u32 = UNIT - 1;

/// Bins of one size each, and for each doubling from then on.
const EXACT: u32 = 16;
const PARTS: u32 = 8;
/// Blocks of up to 176 bytes, by their units, and how many of each size are kept.
const SHELVES: usize = 12;
const KEPT: u8 = 8;
/// For blocks of up to 2 GiB.
const BINS: usize = 224;
/// How many blocks are looked at in the bin that may have what is too small.
const LOOKED_AT: u32 = 8;
const LARGEST: u32 = 0x7000_0000;

/// Blocks, handed out and free.
pub(crate) struct Heap<M> {
    memory: M,
    /// The word behind the last block, or 0.
    end: u32,
    /// The first free block of each bin, or 0.
    bins: [u32; BINS],
    /// A bit for each bin that has any.
    filled: [u32; BINS / 32],
    /// The first block of each shelf, or 0, and how many there are. They count as handed out, and each has the next behind its word.
    shelves: [(u32, u8); SHELVES],
}

impl<M: Memory> Heap<M> {
    pub(crate) const fn new(memory: M) -> Self {
        Self { memory, end: 0, bins: [0; BINS], filled: [0; BINS / 32], shelves: [(0, 0); SHELVES] }
    }

    /// The address of so many bytes.
    #[inline(never)]
    pub(crate) fn allocate(&mut self, len: u32) -> Option<u32> {
        let want = size_for(len)?;
        if let Some((first, count)) = self.shelves.get_mut((want / UNIT) as usize)
            && *count > 0
        {
            let block = *first;
            *first = self.memory.load(block + HEAD);
            *count -= 1;
            return Some(block + HEAD);
        }
        self.allocate_anew(want)
    }

    /// As [`Heap::allocate`], a block of a size that is on no shelf.
    #[inline(never)]
    fn allocate_anew(&mut self, want: u32) -> Option<u32> {
        let block = match self.find(want) {
            Some(block) => block,
            None => {
                self.clear_shelves();
                match self.find(want) {
                    Some(block) => block,
                    None => {
                        self.grow(want)?;
                        self.find(want)?
                    }
                }
            }
        };
        self.unlink(block);
        let have = self.size(block);
        self.cut(block, have, want, 0);
        Some(block + HEAD)
    }

    /// Takes back what was handed out.
    pub(crate) fn free(&mut self, at: u32) {
        let block = at - HEAD;
        if let Some((first, count)) = self.shelves.get_mut((self.memory.load(block) / UNIT) as usize)
            && *count < KEPT
        {
            self.memory.store(at, *first);
            *first = block;
            *count += 1;
            return;
        }
        self.release(block);
    }

    /// What lies on the shelves is free, as everything else is.
    #[inline(never)]
    fn clear_shelves(&mut self) {
        while let Some((first, count)) = self.shelves.iter_mut().find(|(_, count)| *count > 0) {
            let block = *first;
            *first = self.memory.load(block + HEAD);
            *count -= 1;
            self.release(block);
        }
    }

    /// Makes what was handed out larger or smaller, and perhaps moves it.
    pub(crate) fn resize(&mut self, at: u32, len: u32) -> Option<u32> {
        let (block, want) = (at - HEAD, size_for(len)?);
        if self.extend(block, want) {
            return Some(at);
        }
        let Some(to) = self.allocate(len) else {
            // It has cleared the shelves: what is behind may be free now.
            return self.extend(block, want).then_some(at);
        };
        self.memory.copy(at, to, self.size(block) - HEAD);
        self.release(block);
        Some(to)
    }

    /// Makes a block that was handed out smaller, or larger by what is free behind it. Whether there was enough.
    fn extend(&mut self, block: u32, want: u32) -> bool {
        let head = self.memory.load(block);
        let mut have = head & !FLAGS;
        if want > have {
            let next = block + have;
            let there = self.memory.load(next);
            if there & USED != 0 || have + (there & !FLAGS) < want {
                return false;
            }
            self.unlink(next);
            have += there & !FLAGS;
        }
        self.cut(block, have, want, head & AFTER_FREE);
        true
    }

    /// As [`Heap::allocate`], at an address that is divisible by a power of two.
    pub(crate) fn allocate_aligned(&mut self, align: u32, len: u32) -> Option<u32> {
        if align <= UNIT {
            return self.allocate(len);
        }
        let from = self.allocate(len.checked_add(align)?.checked_add(UNIT)?)?;
        let at = from.checked_add(align - 1)? & !(align - 1);
        let lead = at - from;
        if lead > 0 {
            // What is before it becomes a block of its own: both are multiples of a unit.
            let (block, head) = (from - HEAD, self.memory.load(from - HEAD));
            self.memory.store(block, lead | head & FLAGS);
            self.memory.store(block + lead, ((head & !FLAGS) - lead) | USED);
            self.release(block);
        }
        self.resize(at, len)
    }

    fn size(&self, block: u32) -> u32 {
        self.memory.load(block) & !FLAGS
    }

    /// Hands out the first part of a block that is in no bin; what is left is free.
    fn cut(&mut self, block: u32, have: u32, want: u32, flags: u32) {
        let left = have - want;
        if left == 0 {
            let next = self.memory.load(block + have);
            self.memory.store(block + have, next & !AFTER_FREE);
        } else {
            self.memory.store(block + want, left | USED);
            self.release(block + want);
        }
        self.memory.store(block, want | USED | flags);
    }

    /// Puts a block into its bin, with those beside it that are free.
    #[inline(never)]
    fn release(&mut self, mut block: u32) {
        let head = self.memory.load(block);
        let mut size = head & !FLAGS;
        let next = self.memory.load(block + size);
        if next & USED == 0 {
            self.unlink(block + size);
            size += next & !FLAGS;
        }
        if head & AFTER_FREE != 0 {
            let before = self.memory.load(block - HEAD);
            block -= before;
            self.unlink(block);
            size += before;
        }
        let behind = block + size;
        let bin = bin_of(size);
        let first = self.bins.get(bin).copied().unwrap_or_default();
        self.memory.store(block, size);
        self.memory.store(block + 4, first);
        self.memory.store(block + 8, 0);
        self.memory.store(behind - HEAD, size);
        self.memory.store(behind, self.memory.load(behind) | AFTER_FREE);
        if first != 0 {
            self.memory.store(first + 8, block);
        }
        self.put_first(bin, block);
    }

    /// Takes a free block out of its bin.
    #[inline(never)]
    fn unlink(&mut self, block: u32) {
        let (next, before) = (self.memory.load(block + 4), self.memory.load(block + 8));
        if next != 0 {
            self.memory.store(next + 8, before);
        }
        if before != 0 {
            self.memory.store(before + 4, next);
        } else {
            self.put_first(bin_of(self.size(block)), next);
        }
    }

    fn put_first(&mut self, bin: usize, block: u32) {
        if let Some(first) = self.bins.get_mut(bin) {
            *first = block;
        }
        if let Some(bits) = self.filled.get_mut(bin / 32) {
            let bit = 1 << (bin % 32);
            *bits = if block == 0 { *bits & !bit } else { *bits | bit };
        }
    }

    /// A free block of at least this size.
    fn find(&self, want: u32) -> Option<u32> {
        let bin = bin_of(want);
        let mut block = self.bins.get(bin).copied()?;
        for _ in 0..LOOKED_AT {
            if block == 0 {
                break;
            }
            if self.size(block) >= want {
                return Some(block);
            }
            block = self.memory.load(block + 4);
        }
        // In each bin from the next one on all are large enough.
        let (mut word, mut behind) = ((bin + 1) / 32, u32::MAX << ((bin + 1) % 32));
        loop {
            let bits = self.filled.get(word)? & behind;
            if bits != 0 {
                return self.bins.get(word * 32 + bits.trailing_zeros() as usize).copied();
            }
            (word, behind) = (word + 1, u32::MAX);
        }
    }

    /// Gets more memory, as a free block of at least this size.
    #[inline(never)]
    fn grow(&mut self, want: u32) -> Option<()> {
        // The words before and behind, and what is not divisible by 16 at the beginning.
        let (from, to) = self.memory.grow(want + 2 * UNIT)?;
        let end = to - HEAD;
        let (block, flags) = if self.end != 0 && from == self.end + HEAD {
            (self.end, self.memory.load(self.end) & AFTER_FREE)
        } else {
            (from.div_ceil(UNIT) * UNIT + UNIT - HEAD, 0)
        };
        self.memory.store(block, (end - block) | USED | flags);
        self.memory.store(end, USED);
        self.end = end;
        self.release(block);
        Some(())
    }
}

/// The size of the block for so many bytes.
fn size_for(len: u32) -> Option<u32> {
    (len <= LARGEST).then(|| (len + HEAD + UNIT - 1) & !(UNIT - 1))
}

/// Where free blocks of a size are.
fn bin_of(size: u32) -> usize {
    let units = size / UNIT;
    if units < EXACT {
        return units as usize;
    }
    let doublings = units.ilog2() - EXACT.ilog2();
    let part = (units >> (doublings + EXACT.ilog2() - PARTS.ilog2())) % PARTS;
    (EXACT + doublings * PARTS + part) as usize
}

#[cfg(test)]
mod tests;
