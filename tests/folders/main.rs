//! Diffusers folders: read in every form that they have, refused with a reason, and written so that
//! diffusers reads them.

#[path = "../golden/python.rs"]
mod find_python;
mod index;
mod python;
mod support;
#[path = "../checkpoints/torch_save.rs"]
#[allow(dead_code)]
mod torch_save;
mod weights;
