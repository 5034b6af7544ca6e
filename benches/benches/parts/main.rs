//! What the parts of a request's way cost, each by itself: `cargo bench --package weir-benches --bench parts [NAME]`.
//!
//! What is called is what the data path calls. One program for all of them, since most of building it is linking.

mod balance;
mod call;
mod chain;
mod client_hello;
mod codec;
mod headers;
mod host_calls;
mod instances;
mod made;
mod route;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = parts;
    // There are a hundred of them: a second each is enough to see one that is slow.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = codec::heads,
        headers::edits,
        route::matches,
        balance::picks,
        client_hello::reading,
        call::dispatch,
        host_calls::each,
        chain::filters,
        instances::instantiation,
        instances::from_cache
}
criterion_main!(parts);
