//! Enumerates the crash images of udax-fs and checks every one.
//!
//! A workload runs on a filesystem over a recording medium. From the recorded stores, flushes and
//! fences ([`trace`]) follow the bytes that the medium may hold after a crash ([`epoch`]); they are
//! enumerated ([`enumerate`]), each is mounted and judged ([`judge`]) against an independent model
//! of a filesystem ([`oracle`]). To know that the enumeration would notice a missing flush or
//! fence, each one is left out in turn ([`plant`]).
//!
//! The model of the hardware, per line of 64 bytes: stores are units of 8 bytes, any prefix of a
//! line's stores may persist at any time, and what was flushed before a fence is durable after it.
//! Lines are independent of each other.
//!
//! This is a development tool. It knows the filesystem only through its public interface, and
//! nothing of its format.

#![forbid(unsafe_code)]

pub mod compare;
pub mod dump;
pub mod enumerate;
pub mod epoch;
pub mod judge;
pub mod oracle;
pub mod pages;
pub mod plant;
pub mod probe;
pub mod random;
pub mod record;
pub mod recovery;
pub mod report;
pub mod rng;
pub mod run;
pub mod session;
pub mod shared;
pub mod sharing;
pub mod steps;
pub mod tails;
pub mod trace;
pub mod workload;
pub mod workloads;
