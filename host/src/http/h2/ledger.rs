//! What a client has used up of what it may do on one HTTP/2 connection. It is told the frames of both directions, and
//! knows when there were too many that get nothing done; what h2 bounds by itself is not counted here.

use std::cell::{Cell, RefCell};

use crate::clock::coarse_millis;
use crate::config::MOST_STREAMS;
use crate::http::h1::HeadError;
use crate::http::h2::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Scanner,
};
use crate::net::close::CloseReason;

/// How many frames a client may send that get nothing done.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Resets of streams, less the streams that were answered; 0 is no limit.
    pub resets: u32,
    /// Streams that are malformed, or more than there may be, less the streams that were answered; 0 is no limit.
    pub errors: u32,
    /// Frames that are about the connection, in [`PERIOD`]; 0 is no limit.
    pub control: u32,
}

/// The time in which control frames are counted, in milliseconds.
const PERIOD: u64 = 10_000;

/// The control frames that a client may send for each stream that it begins: its priority, and windows.
const FOR_STREAM: u32 = 4;

/// Those that it may send for each DATA frame that it is sent: its windows, and pings that measure how fast it comes.
const FOR_DATA: u32 = 10;

/// The frames that are read before others have their turn.
const TURN: u32 = 100;

/// The streams that are remembered until their answer has ended. No connection may have more at a time.
const MOST_OPEN: usize = MOST_STREAMS as usize;

/// Codes of RST_STREAM (RFC 9113 section 7).
const PROTOCOL_ERROR: u32 = 0x1;
const FLOW_CONTROL_ERROR: u32 = 0x3;
const STREAM_CLOSED: u32 = 0x5;
const FRAME_SIZE_ERROR: u32 = 0x6;
const REFUSED_STREAM: u32 = 0x7;

/// What h2 has refused of its own accord, before anything was made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A malformed stream, which it has reset.
    Malformed,
    /// A header list that is too large, which it has answered by 431.
    TooLarge,
    /// One stream more than there may be.
    TooMany,
    /// A CONNECT that announces a body, which hyper has reset.
    Connect,
}

impl Refusal {
    /// The words of those that no request has that Weir refuses.
    pub const WORDS: [&'static str; 2] = ["malformed_stream", "too_many_streams"];

    /// As metrics and logs have it.
    pub const fn as_str(self) -> &'static str {
        let [malformed, too_many] = Self::WORDS;
        match self {
            Self::Malformed => malformed,
            Self::TooLarge => HeadError::TooLarge.as_str(),
            Self::TooMany => too_many,
            Self::Connect => HeadError::Connect.as_str(),
        }
    }
}

/// What a client has used up on one connection.
#[derive(Debug)]
pub struct Ledger {
    limits: FrameLimits,
    resets: Cell<u32>,
    errors: Cell<u32>,
    control: Cell<u32>,
    /// When counting began, in milliseconds.
    since: Cell<u64>,
    /// The last stream that the client began.
    last: Cell<u32>,
    /// The frames that have come.
    frames: Cell<u64>,
    /// Where a header block began that has not ended: the number of its frame.
    block: Cell<Option<u64>>,
    /// Whether a frame other than DATA has come in part.
    partial: Cell<bool>,
    /// The frames of this turn.
    turn: Cell<u32>,
    /// The streams that have begun, and whose answer has not ended on the wire.
    open: RefCell<Vec<u32>>,
    /// The frames of streams that have gone either way.
    moved: Cell<u64>,
    /// The last stream that h2 has answered by 431; 0 when there was none.
    too_large: Cell<u32>,
    refused: [Cell<u32>; 4],
    broken: Cell<Option<CloseReason>>,
    calmed: Cell<Option<CloseReason>>,
}

impl Ledger {
    /// A connection that begins.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            resets: Cell::new(0),
            errors: Cell::new(0),
            control: Cell::new(0),
            since: Cell::new(coarse_millis()),
            last: Cell::new(0),
            frames: Cell::new(0),
            block: Cell::new(None),
            // The preface.
            partial: Cell::new(true),
            turn: Cell::new(0),
            open: RefCell::default(),
            moved: Cell::new(0),
            too_large: Cell::new(0),
            refused: Default::default(),
            broken: Cell::new(None),
            calmed: Cell::new(None),
        }
    }

    /// Takes note of bytes that have come. False once the client has sent too much of something.
    pub fn received(&self, scanner: &mut Scanner, bytes: &[u8]) -> bool {
        scanner.scan(bytes, |frame| self.came(frame));
        // How fast DATA is to come is the business of whoever reads the body.
        self.partial.set(scanner.is_within_other_than(DATA));
        self.broken.get().is_none()
    }

    fn came(&self, frame: Frame) {
        self.frames.set(self.frames.get() + 1);
        self.turn.set(self.turn.get() + 1);
        match frame.kind {
            HEADERS | CONTINUATION => {
                let begun = self.block.get().unwrap_or(self.frames.get());
                self.block.set((frame.flags & END_HEADERS == 0).then_some(begun));
                self.moved.set(self.moved.get() + 1);
                if frame.stream > self.last.get() {
                    self.last.set(frame.stream);
                    self.earn(FOR_STREAM);
                    let mut open = self.open.borrow_mut();
                    if open.len() < MOST_OPEN {
                        open.push(frame.stream);
                    }
                }
            }
            RST_STREAM => {
                self.close(frame.stream);
                let resets = self.resets.get().saturating_add(1);
                self.resets.set(resets);
                if resets == self.limits.resets {
                    self.broken.set(Some(CloseReason::Http2Resets));
                }
            }
            // h2 bounds those that are empty, and those that are tiny.
            DATA => self.moved.set(self.moved.get() + 1),
            _ => self.spend(),
        }
    }

    /// One control frame more.
    fn spend(&self) {
        let spent = self.control.get().saturating_add(1);
        self.control.set(spent);
        if spent <= self.limits.control || self.limits.control == 0 {
            return;
        }
        // The clock is looked at only here.
        let now = coarse_millis();
        if now.saturating_sub(self.since.get()) < PERIOD {
            self.broken.set(Some(CloseReason::Http2Control));
        }
        self.since.set(now);
        self.control.set(1);
    }

    fn earn(&self, frames: u32) {
        self.control.set(self.control.get().saturating_sub(frames));
    }

    /// One stream more that was wrong.
    fn err(&self) {
        let errors = self.errors.get().saturating_add(1);
        self.errors.set(errors);
        if errors == self.limits.errors {
            self.broken.set(Some(CloseReason::Http2StreamErrors));
        }
    }

    fn close(&self, stream: u32) {
        let mut open = self.open.borrow_mut();
        if let Some(at) = open.iter().position(|open| *open == stream) {
            open.swap_remove(at);
        }
    }

    /// Takes note of bytes that were sent.
    pub fn sent(&self, scanner: &mut Scanner, bytes: &[u8]) {
        scanner.scan(bytes, |frame| {
            let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            if ends || frame.kind == RST_STREAM {
                self.close(frame.stream);
            }
            self.moved.set(self.moved.get() + u64::from(frame.stream > 0));
            self.went(frame);
            // An answer that has left makes up for one that was not waited for.
            if ends && self.too_large.get() != frame.stream {
                self.resets.set(self.resets.get().saturating_sub(1));
                self.errors.set(self.errors.get().saturating_sub(1));
            }
        });
    }

    fn went(&self, frame: Frame) {
        match (frame.kind, frame.code()) {
            (DATA, _) => self.earn(FOR_DATA),
            (HEADERS, _) if self.is_too_large(frame) => {
                self.too_large.set(frame.stream);
                self.refuse(Refusal::TooLarge);
            }
            // It comes behind the answer when the client has not sent all.
            (RST_STREAM, PROTOCOL_ERROR) if self.too_large.get() == frame.stream => {}
            (RST_STREAM, PROTOCOL_ERROR | FLOW_CONTROL_ERROR | FRAME_SIZE_ERROR) => {
                self.refuse(Refusal::Malformed);
                self.err();
            }
            (RST_STREAM, REFUSED_STREAM) => {
                self.refuse(Refusal::TooMany);
                self.err();
            }
            // A good client that was answered early has sent some of its body by then.
            (RST_STREAM, STREAM_CLOSED) => self.spend(),
            (GOAWAY, _) => self.calmed.set(calmed_for(&frame)),
            _ => {}
        }
    }

    /// Whether it is h2's own answer to a header list that is too large: `:status: 431` and nothing else, as a literal
    /// with Huffman's code (RFC 7541 section 6.2), or once that was sent by its place in the table. Weir's answers and
    /// those of upstreams have fields.
    fn is_too_large(&self, frame: Frame) -> bool {
        let ends = frame.flags & END_STREAM != 0;
        let literal = matches!((frame.len, frame.front), (5, [0x48 | 0x08, 0x83, 0x69, 0x90, ..]));
        let indexed = matches!((frame.len, frame.front), (1, [0xbe..=0xff, ..])) && self.too_large.get() > 0;
        ends && (literal || indexed)
    }

    fn refuse(&self, refusal: Refusal) {
        if let Some(count) = self.refused.get(refusal as usize) {
            count.set(count.get() + 1);
        }
    }

    /// hyper has refused a CONNECT.
    pub fn refuse_connect(&self) {
        self.refuse(Refusal::Connect);
        self.err();
    }

    /// Tells each refusal since the last time.
    pub fn tell_refusals(&self, tell: impl Fn(Refusal)) {
        for refusal in [Refusal::Malformed, Refusal::TooLarge, Refusal::TooMany, Refusal::Connect] {
            let count = self.refused.get(refusal as usize).map_or(0, Cell::take);
            (0..count).for_each(|_| tell(refusal));
        }
    }

    /// A turn of the connection begins.
    pub fn begin_turn(&self) {
        self.turn.set(0);
    }

    /// Whether others are to have their turn before more is read: those who take what has come, too, so that little of it
    /// piles up.
    pub fn turn_is_over(&self) -> bool {
        self.turn.get() >= TURN
    }

    /// By a number that changes with every frame of a stream, whether answers are not on their way in full.
    pub fn unsent(&self) -> Option<u64> {
        (!self.open.borrow().is_empty()).then(|| self.moved.get())
    }

    /// What is awaited in full when something is that must not take long, by a number of its own: the preface, a frame,
    /// or the rest of a header block.
    pub fn awaited(&self) -> Option<u64> {
        self.block.get().or_else(|| self.partial.get().then_some(self.frames.get()))
    }

    /// The last stream that the client began.
    pub fn last_stream(&self) -> u32 {
        self.last.get()
    }

    /// What the client has sent too much of.
    pub fn broken(&self) -> Option<CloseReason> {
        self.broken.get()
    }

    /// What h2 has told the client to be calm about.
    pub fn calmed(&self) -> Option<CloseReason> {
        self.calmed.get()
    }
}

/// What h2 says in a GOAWAY behind the last stream and the code. Its error does not tell.
fn calmed_for(goaway: &Frame) -> Option<CloseReason> {
    match goaway.front.get(8..)? {
        b"too_many_r" => Some(CloseReason::Http2Resets),
        b"too_many_i" => Some(CloseReason::Http2StreamErrors),
        b"too_many_c" => Some(CloseReason::Http2Continuations),
        b"header_lis" => Some(CloseReason::Http2HeaderList),
        b"too_many_d" => Some(CloseReason::Http2Data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 0x6;

    fn ledger(resets: u32, control: u32) -> Ledger {
        Ledger::new(FrameLimits { resets, errors: 3, control })
    }

    /// A frame without payload on the wire.
    fn wire(kind: u8, flags: u8, stream: u8) -> [u8; 9] {
        [0, 0, 0, kind, flags, 0, 0, 0, stream]
    }

    /// Whether the connection goes on after so many frames.
    fn goes_on(ledger: &Ledger, kind: u8, times: usize) -> bool {
        let mut scanner = Scanner::behind(0);
        (0..times).all(|_| ledger.received(&mut scanner, &wire(kind, 0, 1)))
    }

    #[test]
    fn a_flood_of_control_frames_ends_the_connection_and_bytes_that_are_sent_pay_for_some() {
        let one = ledger(0, 100);
        assert!(goes_on(&one, PING, 100) && !goes_on(&one, PING, 1));
        assert_eq!(one.broken(), Some(CloseReason::Http2Control));
        // Whatever is not known is one, too.
        assert!(!goes_on(&ledger(0, 100), 0xfa, 101));
        let other = ledger(0, 100);
        assert!(goes_on(&other, PING, 100));
        other.sent(&mut Scanner::behind(0), &wire(DATA, 0, 1));
        assert!(goes_on(&other, PING, 10) && !goes_on(&other, PING, 1));
        assert!(goes_on(&ledger(0, 0), PING, 10_000), "no limit");
    }

    #[test]
    fn control_frames_are_counted_anew_after_a_while() {
        let slow = ledger(0, 100);
        assert!(goes_on(&slow, PING, 100));
        slow.since.set(slow.since.get() - PERIOD);
        assert!(goes_on(&slow, PING, 100) && !goes_on(&slow, PING, 1));
    }

    #[test]
    fn resets_end_the_connection_unless_as_many_streams_are_answered() {
        let rapid = ledger(50, 0);
        assert!(goes_on(&rapid, RST_STREAM, 49) && !goes_on(&rapid, RST_STREAM, 1));
        assert_eq!(rapid.broken(), Some(CloseReason::Http2Resets));
        let fair = ledger(50, 0);
        let mut sent = Scanner::behind(0);
        for _ in 0..1_000 {
            fair.sent(&mut sent, &wire(DATA, END_STREAM, 1));
            assert!(goes_on(&fair, RST_STREAM, 1));
        }
    }

    #[test]
    fn counts_without_a_limit_neither_overflow_nor_fall_below_nothing() {
        let ledger = Ledger::new(FrameLimits { resets: 0, errors: 0, control: 0 });
        let mut sent = Scanner::behind(0);
        // Nothing was wrong before: an answer makes up for nothing.
        ledger.sent(&mut sent, &wire(DATA, END_STREAM, 1));
        let counts = |ledger: &Ledger| [&ledger.resets, &ledger.errors, &ledger.control].map(Cell::get);
        assert_eq!(counts(&ledger), [0; 3]);
        [&ledger.resets, &ledger.errors, &ledger.control].iter().for_each(|count| count.set(u32::MAX));
        assert!(goes_on(&ledger, RST_STREAM, 2) && goes_on(&ledger, PING, 2));
        ledger.sent(&mut sent, &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(counts(&ledger), [u32::MAX; 3]);
        assert_eq!(ledger.broken(), None);
    }

    #[test]
    fn an_answer_is_unsent_until_its_last_frame_has_gone() {
        let ledger = ledger(0, 0);
        let (mut scanner, mut sent) = (Scanner::behind(0), Scanner::behind(0));
        assert_eq!(ledger.unsent(), None);
        for stream in [1, 3, 5] {
            ledger.received(&mut scanner, &wire(HEADERS, END_HEADERS | END_STREAM, stream));
        }
        let before = ledger.unsent();
        ledger.sent(&mut sent, &wire(HEADERS, END_HEADERS, 1));
        assert!(ledger.unsent() > before, "something has moved");
        ledger.sent(&mut sent, &wire(DATA, END_STREAM, 1));
        ledger.sent(&mut sent, &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert!(ledger.unsent().is_some());
        ledger.received(&mut scanner, &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
        assert_eq!(ledger.unsent(), None);
    }

    #[test]
    fn what_h2_refuses_is_told_by_what_it_sends() {
        let ledger = ledger(0, 0);
        let reset =
            |stream, code| [&[0, 0, 4, RST_STREAM, 0, 0, 0, 0, stream, 0, 0, 0][..], &[code]].concat();
        let head = |stream, block: &[u8]| {
            let head = [0, 0, block.len() as u8, HEADERS, END_STREAM | END_HEADERS, 0, 0, 0, stream];
            [&head[..], block].concat()
        };
        let mut scanner = Scanner::behind(0);
        for bytes in [
            reset(1, 1),
            // An answer of an upstream that has no field.
            head(3, &[0xbe]),
            head(5, &[0x48, 0x83, 0x69, 0x90, 0xff]),
            reset(5, 1),
            head(7, &[0xbe]),
            reset(9, 7),
            // An answer that was early.
            reset(9, 5),
            // Weir itself, and clients that are gone.
            reset(11, 2),
            reset(13, 8),
        ] {
            ledger.sent(&mut scanner, &bytes);
        }
        let told = RefCell::new(Vec::new());
        ledger.tell_refusals(|refusal| told.borrow_mut().push(refusal));
        let expected = [Refusal::Malformed, Refusal::TooLarge, Refusal::TooLarge, Refusal::TooMany];
        assert_eq!(*told.borrow(), expected);
        ledger.tell_refusals(|refusal| panic!("{refusal:?} is told once"));
        assert_eq!(ledger.broken(), None);
        ledger.sent(&mut scanner, &[reset(15, 7), reset(17, 7), reset(19, 7)].concat());
        assert_eq!(ledger.broken(), Some(CloseReason::Http2StreamErrors));
    }

    #[test]
    fn a_header_block_is_awaited_from_its_beginning_and_a_piece_of_data_is_not() {
        let ledger = ledger(0, 0);
        assert!(ledger.awaited().is_some(), "the preface");
        let mut scanner = Scanner::behind(0);
        ledger.received(&mut scanner, &wire(PING, 0, 0));
        assert_eq!(ledger.awaited(), None);
        ledger.received(&mut scanner, &wire(HEADERS, 0, 1));
        let begun = ledger.awaited();
        assert!(begun.is_some());
        ledger.received(&mut scanner, &wire(CONTINUATION, 0, 1));
        assert_eq!(ledger.awaited(), begun, "it is the same block");
        ledger.received(&mut scanner, &wire(CONTINUATION, END_HEADERS, 1));
        assert_eq!(ledger.awaited(), None);
        ledger.received(&mut scanner, &[0, 0, 9, DATA, 0, 0, 0, 0, 1, 7]);
        assert_eq!(ledger.awaited(), None, "DATA");
        ledger.received(&mut scanner, &[7; 8]);
        ledger.received(&mut scanner, &[0, 0]);
        assert!(ledger.awaited().is_some(), "the head of a frame");
    }
}
