//! Synecho: do synthetic echocardiograms help?
//!
//! A spec becomes a graph of stages, and the results of its stages become a report:
//!
//! [`experiment`] -> [`plan`] -> [`execute`] -> { [`data`], [`generate`], [`train`], [`measure`] } -> artifacts in the
//! [`store`] -> [`gather`] -> { [`aggregate`], [`report`] }.
//!
//! The stage modules never import each other. They meet in artifacts, whose shapes are [`manifest`] (images and masks),
//! [`pipeline`] (diffusers' folders and the networks in them), [`results`] (measurements and curves) and [`picture`].
//! The words that several modules share are in [`vocabulary`]; a [`cell::Cell`] identifies a result.
//!
//! `docs/architecture.md` describes the modules, the arrows between them, the store and the keys.

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
pub mod file_lock;
pub mod gather;
pub mod generate;
pub mod manifest;
pub mod measure;
pub mod memory;
pub mod nn;
pub mod observer;
pub mod pace;
pub mod picture;
pub mod pipeline;
pub mod plain_file;
pub mod plan;
pub mod progress;
pub mod prompt;
pub mod random;
pub mod report;
pub mod resize;
pub mod results;
pub mod samples;
pub mod scan;
pub mod sector;
pub mod store;
pub mod text_file;
pub mod train;
pub mod vocabulary;

pub use error::{Error, Result};
