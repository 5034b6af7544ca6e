//! Trying plugins out: the instances, host functions and chains of `weir run`, around which everything else is made up.
//!
//! A [`Bed`] is one worker's plugins without a worker: no sockets, no clusters, and a clock that stands still but for what
//! somebody waits for. `case` reads cases that are written in YAML, `exchange` and `connection` run one stream, `answers`
//! is what is in the place of clusters, `world` in that of clock and log, `compare` finds what is not as wanted.
//! `weir plugin test` and the crate `weir-testkit` are both made of this.

mod answers;
mod bed;
mod bench;
mod case;
mod compare;
mod connection;
mod exchange;
mod facts;
mod message;
mod run;
mod seen;
mod update;
mod wanted;
mod world;

pub use answers::{Call, CallReply};
pub use bed::{Bed, NotStarted, Setting, Workbench};
pub use bench::{Bench, Cost, Costs, Manner};
pub use case::{Case, CaseFile, Neighbour, Step, Use};
pub use compare::{Difference, Left, compare};
pub use facts::{
    CertificateFacts, ConnectionFacts, Direction, Protocol, RequestFacts, ResponseFacts, RouteInfo, Time,
    TlsFacts, TlsVersion, default_of,
};
pub use message::{Body, Headers, Texts};
pub use run::{Cast, Outcome, run_file, setting};
pub use seen::{Line, Seen, SeenCall, SeenRequest, SeenResponse};
pub use wanted::{Expect, Wanted, WantedCall, WantedHeaders, WantedRequest, WantedResponse};
