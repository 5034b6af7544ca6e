//! The heap in a memory that looks at every access.

use super::*;

const PAGE: u32 = 64 << 10;

/// A memory that panics where a word is not within it, and which somebody else may have grown meanwhile.
struct Checked {
    bytes: Vec<u8>,
    most: usize,
    /// Whether others grow it, too.
    shared: bool,
}

impl Memory for Checked {
    fn load(&self, at: u32) -> u32 {
        assert_eq!(at % 4, 0);
        let word = self.bytes[at as usize..at as usize + 4].try_into().expect("four bytes");
        u32::from_le_bytes(word)
    }

    fn store(&mut self, at: u32, value: u32) {
        assert_eq!(at % 4, 0);
        self.bytes[at as usize..at as usize + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn copy(&mut self, from: u32, to: u32, len: u32) {
        assert!(from + len <= to || to + len <= from, "they overlap");
        self.bytes.copy_within(from as usize..(from + len) as usize, to as usize);
    }

    fn grow(&mut self, len: u32) -> Option<(u32, u32)> {
        if self.shared {
            self.bytes.resize(self.bytes.len() + PAGE as usize, 0xee);
        }
        let from = if self.bytes.is_empty() { 1_037 } else { self.bytes.len() };
        let to = (from + len as usize).next_multiple_of(PAGE as usize);
        (to <= self.most).then(|| {
            self.bytes.resize(to, 0xdd);
            (from as u32, to as u32)
        })
    }
}

fn heap(most: usize, shared: bool) -> Heap<Checked> {
    Heap::new(Checked { bytes: Vec::new(), most, shared })
}

impl Heap<Checked> {
    /// Walks over the blocks of the one region that there is; the sizes of those that are free.
    fn walk(&self) -> Vec<u32> {
        let (mut at, mut free, mut is_after_free) =
            (1_037_u32.next_multiple_of(UNIT) + UNIT - HEAD, Vec::new(), false);
        loop {
            let head = self.memory.load(at);
            assert_eq!(head & AFTER_FREE != 0, is_after_free, "at {at}");
            let size = head & !FLAGS;
            if size == 0 {
                assert_eq!((at, self.end + HEAD), (self.end, self.memory.bytes.len() as u32));
                break;
            }
            is_after_free = head & USED == 0;
            if is_after_free {
                assert_eq!(head & AFTER_FREE, 0, "two free blocks beside each other");
                assert_eq!(self.memory.load(at + size - HEAD), size);
                free.push(size);
            }
            at += size;
        }
        let mut hung = Vec::new();
        for (bin, first) in self.bins.iter().enumerate() {
            assert_eq!(self.filled[bin / 32] & 1 << (bin % 32) != 0, *first != 0, "bin {bin}");
            let (mut block, mut before) = (*first, 0);
            while block != 0 {
                assert_eq!((self.memory.load(block + 8), bin_of(self.size(block))), (before, bin));
                hung.push(self.size(block));
                (before, block) = (block, self.memory.load(block + 4));
            }
        }
        free.sort_unstable();
        hung.sort_unstable();
        assert_eq!(free, hung, "each free block is in its bin");
        free
    }
}

/// xorshift, so that each run is the same.
fn random(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

/// What was handed out: where, how much, and what was written there.
struct Piece(u32, u32, u8);

impl Piece {
    fn new(heap: &mut Heap<Checked>, at: u32, len: u32, mark: u8) -> Self {
        heap.memory.bytes[at as usize..(at + len) as usize].fill(mark);
        Self(at, len, mark)
    }

    fn is_as_written(&self, heap: &Heap<Checked>, len: u32) -> bool {
        heap.memory.bytes[self.0 as usize..(self.0 + len) as usize].iter().all(|byte| *byte == self.2)
    }
}

/// Does whatever can be done, in an order that nobody chose; the heap with nothing handed out.
fn churn(seed: u32, shared: bool) -> Heap<Checked> {
    let (mut heap, mut state, mut pieces) = (heap(64 << 20, shared), seed, Vec::<Piece>::new());
    for step in 0..12_000_u32 {
        let (what, mark) = (random(&mut state) % 8, step as u8);
        let len = random(&mut state) % [24, 200, 5_000, 200_000][(random(&mut state) % 4) as usize];
        let picked = random(&mut state) as usize;
        if what < 3 || pieces.is_empty() {
            let align = if what == 0 { 1 << (random(&mut state) % 13) } else { 1 };
            let at = heap.allocate_aligned(align, len).expect("there is room");
            assert_eq!((at % align.max(UNIT), at >= 1_037), (0, true));
            pieces.push(Piece::new(&mut heap, at, len, mark));
        } else if what < 5 {
            let place = picked % pieces.len();
            let piece = pieces.swap_remove(place);
            let at = heap.resize(piece.0, len).expect("there is room");
            assert!(Piece(at, 0, piece.2).is_as_written(&heap, len.min(piece.1)), "step {step}");
            pieces.push(Piece::new(&mut heap, at, len, mark));
        } else {
            let piece = pieces.swap_remove(picked % pieces.len());
            assert!(piece.is_as_written(&heap, piece.1), "step {step}");
            heap.free(piece.0);
        }
        if step % 500 == 0 && !shared {
            heap.walk();
        }
    }
    for piece in pieces {
        assert!(piece.is_as_written(&heap, piece.1));
        heap.free(piece.0);
    }
    heap.clear_shelves();
    heap
}

#[test]
fn nothing_overlaps_and_nothing_is_lost_whatever_is_done() {
    for seed in 1..=4 {
        let heap = churn(seed, false);
        assert_eq!(heap.walk().len(), 1, "one free block is left, of seed {seed}");
    }
}

#[test]
fn memory_that_somebody_else_has_taken_is_left_alone() {
    for seed in 1..=2 {
        let heap = churn(seed, true);
        let of_others = heap.memory.bytes.iter().filter(|byte| **byte == 0xee).count();
        assert!(of_others >= PAGE as usize, "seed {seed}");
    }
}

#[test]
fn what_is_freed_is_used_again_and_memory_does_not_grow() {
    let mut heap = heap(64 << 20, false);
    for len in [1_000_000, 30, 1_000_000, 64_000, 999_000, 1_000_000] {
        let at = heap.allocate(len).expect("there is room");
        let beside = heap.allocate(100).expect("there is room");
        heap.free(at);
        heap.free(beside);
    }
    assert!(heap.memory.bytes.len() < 1_200_000, "{}", heap.memory.bytes.len());
    // A vector that grows at the end stays where it is, unless what lies on a shelf is in its way.
    heap.clear_shelves();
    let at = heap.allocate(1_000).expect("there is room");
    let grown = [10_000, 100_000, 900_000].map(|len| heap.resize(at, len));
    assert_eq!(grown, [Some(at); 3]);
}

#[test]
fn what_is_small_and_freed_is_handed_out_next_up_to_a_few_of_a_size() {
    let mut heap = heap(64 << 20, false);
    let small: Vec<u32> = (0..10).map(|_| heap.allocate(100).expect("there is room")).collect();
    let _beside = heap.allocate(100);
    small.iter().for_each(|at| heap.free(*at));
    // The last two found the shelf full, and are one block.
    assert_eq!(heap.walk().len(), 2);
    let again: Vec<u32> = (0..8).map(|_| heap.allocate(108).expect("there is room")).collect();
    assert_eq!(again, small[..8].iter().rev().copied().collect::<Vec<_>>());
}

#[test]
fn what_lies_on_a_shelf_keeps_nothing_from_growing_where_there_is_no_other_room() {
    let mut heap = heap(PAGE as usize * 4, false);
    let large = heap.allocate(PAGE * 2).expect("there is room");
    let small = heap.allocate(100).expect("there is room");
    heap.free(small);
    assert_eq!(heap.resize(large, PAGE * 2 + PAGE / 2), Some(large));
    assert_eq!(heap.resize(large, PAGE * 4), None);
}

#[test]
fn what_there_is_no_room_for_is_refused_and_everything_else_goes_on() {
    let mut heap = heap(PAGE as usize * 4, false);
    assert_eq!(heap.allocate(PAGE * 4), None);
    assert_eq!(heap.allocate(u32::MAX), None);
    assert_eq!(heap.allocate_aligned(1 << 31, 1 << 31), None);
    let mut all = Vec::new();
    while let Some(at) = heap.allocate(1_000) {
        all.push(at);
    }
    assert!(all.len() > 250, "{}", all.len());
    assert_eq!(heap.resize(all[0], 3_000), None);
    all.into_iter().for_each(|at| heap.free(at));
    assert_eq!(heap.walk().len(), 1);
    // Nor does what lies on a shelf.
    let mut small: Vec<_> = std::iter::from_fn(|| heap.allocate(100)).collect();
    assert!(small.len() > 2_000, "{}", small.len());
    // What is freed first is kept: it lies in the middle, and neither side is enough.
    let half = small.len() / 2;
    small.rotate_left(half);
    small.into_iter().for_each(|at| heap.free(at));
    assert!(heap.allocate(PAGE * 3).is_some());
}

#[test]
fn every_size_has_a_bin_and_larger_ones_no_earlier_one() {
    let mut last = 0;
    for units in (1..5_000).chain((13..27).map(|power| 1 << power)).chain([LARGEST / UNIT + 1]) {
        let bin = bin_of(units * UNIT);
        assert!(bin >= last && bin < BINS, "{units}");
        last = bin;
    }
}
