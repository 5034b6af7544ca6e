//! Tokens whose signatures have been verified: a caller shows the same one again and again, and to verify it is most of
//! what the filter costs. What a token says is looked at every time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::key::Key;

/// The most tokens that are remembered.
const MOST: usize = 1024;

/// The digests of tokens that were signed with one of these keys.
#[derive(Debug, Default)]
pub(crate) struct Seen(RefCell<Option<Verified>>);

/// Tokens, and the keys that verified them.
type Verified = (Rc<[Key]>, BTreeSet<Digest>);

/// The SHA-256 of a whole token, signature and all.
pub(crate) type Digest = [u8; 32];

impl Seen {
    /// Whether a token was verified with these very keys. With others nothing is known.
    pub(crate) fn knows(&self, keys: &Rc<[Key]>, token: &Digest) -> bool {
        let seen = self.0.borrow();
        seen.as_ref().is_some_and(|(known, tokens)| Rc::ptr_eq(known, keys) && tokens.contains(token))
    }

    /// Remembers that a token was verified with these keys.
    pub(crate) fn add(&self, keys: &Rc<[Key]>, token: Digest) {
        let mut seen = self.0.borrow_mut();
        match seen.as_mut() {
            Some((known, tokens)) if Rc::ptr_eq(known, keys) && tokens.len() < MOST => {
                tokens.insert(token);
            }
            // Those that are still shown will be known again soon.
            Some(_) | None => *seen = Some((Rc::clone(keys), BTreeSet::from([token]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_known_for_these_keys_and_there_is_an_end_to_it() {
        let (seen, keys, others): (_, Rc<[Key]>, Rc<[Key]>) = (Seen::default(), Rc::from([]), Rc::from([]));
        seen.add(&keys, [1; 32]);
        assert!(seen.knows(&keys, &[1; 32]) && !seen.knows(&keys, &[2; 32]));
        assert!(!seen.knows(&others, &[1; 32]), "with other keys it is another matter");
        for at in 0..u16::try_from(MOST).expect("it fits") {
            let mut token = [0; 32];
            token[..2].copy_from_slice(&at.to_le_bytes());
            seen.add(&keys, token);
        }
        assert!(
            !seen.knows(&keys, &[1; 32])
                && seen.0.borrow().as_ref().is_some_and(|(_, tokens)| tokens.len() < MOST)
        );
    }
}
