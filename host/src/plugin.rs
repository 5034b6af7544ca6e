//! Plugins: loading, running and swapping Proxy-Wasm modules.
//!
//! `engine` compiles, `module` checks and refuses, `inspect` tells what a file says of itself, `instance` runs one VM under its budgets, `abi` is what the
//! guest may call, `chain` runs the filters of one stream, `fiber` is what a call that gives way has, `library` watches the directory.

pub mod abi;
pub mod budget;
pub mod chain;
pub mod code_cache;
pub mod digest;
pub mod directory;
pub mod engine;
pub mod fiber;
pub mod filter;
pub mod grants;
pub mod inspect;
pub mod instance;
pub mod library;
pub mod meter;
pub mod module;
pub mod outside;
pub mod parts;
pub mod queues;
pub mod quotas;
pub mod requests;
pub mod schema;
pub mod services;
pub mod signatures;
pub mod space;
pub mod spec;
pub mod state;
pub mod stream;
pub mod template;
pub mod vm;
pub mod watch;
pub mod workshop;
