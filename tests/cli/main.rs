//! The program as a user runs it: the built binary, in folders of its own.

mod continuation;
mod damage;
mod data_faults;
mod failing;
mod journey;
mod requests;
mod sample;
mod support;
mod texture;
mod together;
