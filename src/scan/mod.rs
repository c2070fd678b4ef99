//! Files of medical images, read as one 2-D slice of numbers ([`Slice`]) with its pixel size.

pub mod metaimage;
pub mod nifti;
mod slice;

pub use slice::{Element, MAX_SIDE, Slice};
