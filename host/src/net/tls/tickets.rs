//! Session tickets of a listener: sealed, so that nothing is kept here, with keys that rotate, and that can be thrown
//! away before their time.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// Session tickets. Their keys are new every six hours, and no ticket is good for more than twelve. The lock is taken
/// in handshakes alone, and for no longer than it takes to copy a pointer.
#[derive(Debug)]
pub struct Tickets(RwLock<Arc<dyn ProducesTickets>>);

impl Tickets {
    /// Tickets with keys of their own.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(RwLock::new(Ticketer::new()?))))
    }

    /// Throws the keys away: no session that began before is resumed.
    ///
    /// # Errors
    /// When there is no randomness; then the keys stay.
    pub fn forget(&self) -> Result<(), Error> {
        let fresh = Ticketer::new()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn current(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.current().lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current().encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.current().decrypt(cipher)
    }
}
