//! Synecho: do synthetic echocardiograms help?
//!
//! The way through:
//! [`experiment`] -> [`plan`] -> [`execute`] -> { [`data`], [`generate`], [`train`], [`measure`], [`aggregate`], [`report`] } -> { [`nn`], [`store`] }.
//!
//! Stage modules never import each other: they meet in artifacts, whose shapes are
//! [`manifest`] (images and masks), [`pipeline`] (diffusers' folders and the networks in them),
//! [`results`] (measurements and curves) and [`picture`].

pub mod aggregate;
pub mod atomic_file;
pub mod augment;
pub mod cell;
pub mod cli;
pub mod data;
pub mod determinism;
pub mod dice;
pub mod doctor;
pub mod error;
pub mod execute;
pub mod experiment;
pub mod gather;
pub mod generate;
pub mod manifest;
pub mod measure;
pub mod memory;
pub mod nn;
pub mod observer;
pub mod picture;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod prompt;
pub mod random;
pub mod report;
pub mod resize;
pub mod results;
pub mod samples;
pub mod store;
pub mod train;
pub mod vocabulary;

pub use error::{Error, Result};
