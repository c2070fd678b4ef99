//! The program as a user runs it: the built binary, in folders of its own.

mod arms;
mod classifiers;
mod continuation;
mod damage;
mod data_faults;
mod diffusers;
mod distances;
mod ejection_fraction;
mod failing;
#[path = "../golden/python.rs"]
mod find_python;
mod flow;
mod generated;
mod generator_faults;
mod generators;
mod journey;
mod outside_files;
mod quality;
mod requests;
mod sample;
mod support;
mod texture;
mod together;
#[path = "../checkpoints/torch_save.rs"]
#[allow(dead_code)]
mod torch_save;
mod weights;
