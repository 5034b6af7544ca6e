//! Serialised header maps, as a guest hands them over.
//!
//! Whatever the bytes: a map that is taken is within its bounds, says exactly what its bytes say, and is written
//! back as the same bytes; one that is refused has one of the reasons there are. Reading takes no memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_abi::{MAX_PAIRS, MAX_PAIRS_BYTES, PairsError, decode_pairs, encode_pairs, encoded_pairs_len};

fuzz_target!(|input: &[u8]| {
    decode(input);
    // Few inputs are maps by chance. The same bytes as the contents of one always are.
    round_trip(input);
    // A map of about as many bytes as there may be, which no input has. It takes its time, so that few do it.
    if let [size @ 0xfc..=0xff, rest @ ..] = input {
        let mut large = rest.to_vec();
        large.resize(MAX_PAIRS_BYTES - 0xfd + usize::from(*size), 0);
        decode(&large);
    }
});

fn decode(input: &[u8]) {
    let expected = by_the_book(input);
    match decode_pairs(input) {
        Ok(pairs) => {
            let pairs: Vec<_> = pairs.collect();
            assert_eq!(expected.as_ref(), Ok(&pairs));
            assert!(pairs.len() <= MAX_PAIRS && input.len() <= MAX_PAIRS_BYTES);
            let mut again = Vec::new();
            encode_pairs(|| pairs.iter().copied(), &mut again);
            assert_eq!(again.len(), encoded_pairs_len(pairs.iter().copied()));
            // An empty map has three forms; every other one has one.
            assert!(again == input || (pairs.is_empty() && again.is_empty()));
        }
        Err(error) => assert_eq!(expected, Err(error)),
    }
}

/// The format, read a second time and in another way: byte by byte, with numbers that cannot overflow.
fn by_the_book(input: &[u8]) -> Result<Vec<(&[u8], &[u8])>, PairsError> {
    if input.is_empty() || input == [0] {
        return Ok(Vec::new());
    }
    if input.len() > MAX_PAIRS_BYTES {
        return Err(PairsError::TooLarge);
    }
    let number = |at: usize| -> Result<u64, PairsError> {
        let bytes = input.get(at..at + 4).ok_or(PairsError::Truncated)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let count = number(0)?;
    if count > MAX_PAIRS as u64 {
        return Err(PairsError::TooMany);
    }
    let mut at = 4 + count * 8;
    if at > input.len() as u64 {
        return Err(PairsError::Truncated);
    }
    let mut pairs = Vec::new();
    for pair in 0..count as usize {
        let mut both = [&input[..0]; 2];
        for (half, item) in both.iter_mut().enumerate() {
            let end = at + number(4 + pair * 8 + half * 4)?;
            if end >= input.len() as u64 {
                return Err(PairsError::Truncated);
            }
            if input[end as usize] != 0 {
                return Err(PairsError::MissingNul);
            }
            *item = &input[at as usize..end as usize];
            at = end + 1;
        }
        pairs.push((both[0], both[1]));
    }
    if at == input.len() as u64 { Ok(pairs) } else { Err(PairsError::TrailingBytes) }
}

fn round_trip(input: &[u8]) {
    let items: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let pairs: Vec<_> = items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut bytes = Vec::new();
    encode_pairs(|| pairs.iter().copied(), &mut bytes);
    match decode_pairs(&bytes) {
        Ok(read) => assert_eq!(read.collect::<Vec<_>>(), pairs),
        Err(error) => {
            let large = bytes.len() > MAX_PAIRS_BYTES;
            let expected = if large { PairsError::TooLarge } else { PairsError::TooMany };
            assert!(error == expected && (large || pairs.len() > MAX_PAIRS), "{error}");
        }
    }
}
