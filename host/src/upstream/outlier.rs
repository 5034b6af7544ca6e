//! Endpoints that keep failing are left out for a while. All workers share what is known of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::coarse_millis;
use crate::config::cluster::OutlierDetection;

/// What is known of the endpoints of a cluster.
#[derive(Debug, Default)]
pub struct Outliers {
    endpoints: Box<[(SocketAddr, Arc<Record>)]>,
    /// Whether any of them has failed since it last answered, or was left out: while none has, nobody looks at them.
    failing: AtomicU32,
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
struct Record {
    /// Failures since it last answered.
    failures: AtomicU32,
    /// Until when it is left out, in coarse milliseconds.
    until: AtomicU64,
}

impl Outliers {
    /// Of these endpoints. What was known of them `before` is still known.
    pub fn new(endpoints: &[SocketAddr], before: Option<&Self>) -> Arc<Self> {
        let known = |address: &SocketAddr| {
            let mut all = before.into_iter().flat_map(|before| before.endpoints.iter());
            all.find(|(known, _)| known == address).map(|(_, record)| Arc::clone(record)).unwrap_or_default()
        };
        let endpoints = endpoints.iter().map(|address| (*address, known(address))).collect();
        let outliers = Self { endpoints, failing: AtomicU32::new(0) };
        outliers.look_again();
        Arc::new(outliers)
    }

    /// Notes whether any of them is failing. Whoever fails meanwhile says so after this, or is seen by it.
    fn look_again(&self) {
        self.failing.store(0, Ordering::SeqCst);
        let is_failing = |record: &Record| {
            record.failures.load(Ordering::SeqCst) > 0 || record.until.load(Ordering::SeqCst) > 0
        };
        if self.endpoints.iter().any(|(_, record)| is_failing(record)) {
            self.failing.store(1, Ordering::SeqCst);
        }
    }

    /// Whether an endpoint is left out.
    pub fn is_ejected(&self, address: SocketAddr) -> bool {
        self.failing.load(Ordering::Relaxed) > 0
            && self
                .record(address)
                .is_some_and(|record| record.until.load(Ordering::Relaxed) > coarse_millis())
    }

    /// An endpoint has answered.
    pub fn succeeded(&self, address: SocketAddr) {
        // Nothing is written while all is well: the line would go from worker to worker.
        if self.failing.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(record) = self.record(address) else { return };
        let mut cleared = record.failures.swap(0, Ordering::SeqCst) > 0;
        // Where all are left out, none is, and those that are down would go on to get their share: whoever answers is back.
        let now = coarse_millis();
        let is_out = |record: &Record| record.until.load(Ordering::Relaxed) > now;
        let was_out = record.until.load(Ordering::Relaxed) > 0;
        if was_out && (!is_out(record) || self.endpoints.iter().all(|(_, other)| is_out(other))) {
            record.until.store(0, Ordering::SeqCst);
            cleared = true;
        }
        if cleared {
            self.look_again();
        }
    }

    /// An endpoint has failed. True when it is left out from now on.
    pub fn failed(&self, address: SocketAddr, config: &OutlierDetection) -> bool {
        let Some(record) = self.record(address) else { return false };
        let failures = record.failures.fetch_add(1, Ordering::SeqCst) + 1;
        self.failing.store(1, Ordering::SeqCst);
        let most = config.consecutive_failures;
        if most == 0 || failures < most.into() {
            return false;
        }
        record.failures.store(0, Ordering::Relaxed);
        let time = u64::try_from(config.base_ejection_time.as_millis()).unwrap_or(u64::MAX);
        record.until.store(coarse_millis().saturating_add(time), Ordering::SeqCst);
        self.failing.store(1, Ordering::SeqCst);
        true
    }

    fn record(&self, address: SocketAddr) -> Option<&Record> {
        self.endpoints.iter().find(|(known, _)| *known == address).map(|(_, record)| &**record)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(time: Duration) -> OutlierDetection {
        OutlierDetection { consecutive_failures: 3, base_ejection_time: time }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn failures_in_a_row_eject_an_endpoint_and_an_answer_in_between_begins_anew() {
        let outliers = Outliers::new(&[address(1), address(2)], None);
        let hour = config(Duration::from_secs(3600));
        let fail = || outliers.failed(address(1), &hour);
        assert!(!fail() && !fail());
        outliers.succeeded(address(1));
        assert!(!fail() && !fail() && !outliers.is_ejected(address(1)));
        assert!(fail() && outliers.is_ejected(address(1)) && !outliers.is_ejected(address(2)));
        // Other endpoints of the same cluster change nothing about that.
        let moved = Outliers::new(&[address(3), address(1)], Some(&outliers));
        assert!(moved.is_ejected(address(1)) && !moved.is_ejected(address(3)));
    }

    #[test]
    fn where_all_are_left_out_the_one_that_answers_is_back_at_once_and_no_other() {
        let outliers = Outliers::new(&[address(1), address(2)], None);
        let hour = config(Duration::from_secs(3600));
        let eject = |port| assert!((0..3).any(|_| outliers.failed(address(port), &hour)));
        eject(1);
        // An answer to what was asked before.
        outliers.succeeded(address(1));
        assert!(outliers.is_ejected(address(1)), "there is another one");
        eject(2);
        outliers.succeeded(address(1));
        assert!(!outliers.is_ejected(address(1)) && outliers.is_ejected(address(2)));
    }

    #[test]
    fn endpoints_are_looked_at_only_while_one_of_them_fails_or_is_left_out() {
        let outliers = Outliers::new(&[address(1), address(2)], None);
        let is_looked_at = |outliers: &Outliers| outliers.failing.load(Ordering::SeqCst) > 0;
        let hour = config(Duration::from_secs(3600));
        assert!(!is_looked_at(&outliers));
        outliers.failed(address(1), &hour);
        outliers.failed(address(2), &hour);
        outliers.succeeded(address(1));
        assert!(is_looked_at(&outliers), "the other one has not answered since");
        let moved = Outliers::new(&[address(2)], Some(&outliers));
        assert!(is_looked_at(&moved) && !is_looked_at(&Outliers::new(&[address(1)], Some(&outliers))));
        outliers.succeeded(address(2));
        assert!(!is_looked_at(&outliers), "all are well");
        assert!((0..3).any(|_| outliers.failed(address(1), &hour)));
        outliers.succeeded(address(2));
        assert!(is_looked_at(&outliers) && outliers.is_ejected(address(1)), "one is left out");
    }

    #[test]
    fn an_endpoint_is_back_when_its_time_is_over() {
        let outliers = Outliers::new(&[address(1)], None);
        for _ in 0..3 {
            outliers.failed(address(1), &config(Duration::ZERO));
        }
        assert!(!outliers.is_ejected(address(1)));
        let never = OutlierDetection { consecutive_failures: 0, ..config(Duration::from_secs(3600)) };
        assert!((0..100).all(|_| !outliers.failed(address(1), &never)), "0 is never");
    }
}
