//! Networks and schedulers, named as their checkpoints name them. Of our modules it imports only
//! `vocabulary`, `error` and `random`.

pub mod autoencoder_kl;
pub mod backbone;
pub mod classifier;
pub mod clip_text;
pub mod config;
pub mod controlnet;
mod conv_norm;
pub mod diffusion;
pub mod efficientnet;
pub mod forward_mode;
pub mod inception;
pub mod init;
mod libtorch_error;
pub mod mobilenet_v3;
pub mod plain_unet;
pub mod resnet;
pub mod schedulers;
pub mod segmenter;
mod squeeze_excitation;
pub mod tensor_file;
pub mod tokenizer;
pub mod torch_file;
pub mod unet;
pub mod unet2d;
pub mod unet2d_condition;
pub mod vgg;
pub mod weights;
