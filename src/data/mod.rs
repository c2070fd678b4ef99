//! Data sets in, one shape out: importers, checks, splits by patient, resizing, and the phantom.
//!
//! Everything here ends in a folder with a [`crate::manifest::Manifest`]; no other part of Synecho
//! knows how a data set looked before.

pub mod check;
pub mod import;
pub mod phantom;
pub mod prepare;
pub mod split;

mod staging;

/// Called with (done, total) from worker threads during long work.
pub type ImageProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);
