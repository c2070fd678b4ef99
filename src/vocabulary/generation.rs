//! How generators make images.

use super::words;

words! {
    /// What an image is made from.
    Mode {
        Unconditional = "unconditional",
        Text = "text",
        TextSegmentation = "text+segmentation",
        /// Images that another program made.
        External = "external",
    }
}

words! {
    /// What the network predicts.
    Prediction {
        /// The noise.
        Epsilon = "epsilon",
        /// sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) image.
        VPrediction = "v-prediction",
    }
}

words! {
    /// Variance added at each of the 1000 timesteps of training; diffusers' names.
    Betas {
        /// 1e-4 to 0.02.
        Linear = "linear",
        /// Square roots from 0.00085 to 0.012: Stable Diffusion's.
        ScaledLinear = "scaled-linear",
        SquaredcosCapV2 = "squaredcos-cap-v2",
    }
}

words! {
    /// What a prompt's template can ask for.
    PromptField {
        View = "view",
        Phase = "phase",
        Quality = "quality",
        Sex = "sex",
        Age = "age",
        EjectionFraction = "ef",
    }
}

words! {
    /// The scheduler whose steps lead from noise to an image.
    Sampler {
        Ddpm = "ddpm",
        Ddim = "ddim",
        Pndm = "pndm",
        UniPc = "unipc",
        DpmSolver = "dpmsolver++",
        Euler = "euler",
        /// Euler's steps with fresh noise in each.
        EulerAncestral = "euler-ancestral",
        /// Each step but the last asks the network twice.
        Heun = "heun",
        /// For latent consistency models: each step predicts the image and adds noise again.
        Lcm = "lcm",
        /// Euler's steps of networks that were trained by flow matching, the only sampler of those.
        FlowEuler = "flow-euler",
    }
}

impl Sampler {
    /// Whether it samples networks that were trained by flow matching, and no others.
    pub fn is_flow_matching(self) -> bool {
        self == Self::FlowEuler
    }

    /// Whether its steps can lie at these noise levels.
    pub fn has_levels(self, levels: NoiseLevels) -> bool {
        match levels {
            NoiseLevels::Timesteps => true,
            NoiseLevels::Karras => {
                matches!(self, Self::UniPc | Self::DpmSolver | Self::Euler | Self::Heun | Self::FlowEuler)
            }
            NoiseLevels::LogSnr => matches!(self, Self::DpmSolver | Self::Euler | Self::Heun),
        }
    }
}

words! {
    /// Where the sampler's steps lie between noise and image.
    NoiseLevels {
        /// As the configuration spaces its timesteps.
        Timesteps = "timesteps",
        /// Karras et al. 2022, eq. 5 (`use_karras_sigmas`).
        Karras = "karras",
        /// Evenly in the log of the signal-to-noise ratio, as Lu et al. 2022 (`use_lu_lambdas`; of Euler and Heun
        /// `use_exponential_sigmas`): more of them where little noise is left, which is where speckle is made.
        LogSnr = "log-snr",
    }
}

words! {
    /// How a residual block takes in time, class and text; diffusers' words.
    TimeScaleShift {
        /// Added before the second norm.
        Default = "default",
        /// As scale and shift behind it.
        ScaleShift = "scale_shift",
    }
}

words! {
    /// Numeric type of activations and working weights. Master weights, norms and losses are f32.
    Precision {
        F32 = "f32",
        Bf16 = "bf16",
        /// Only for generators on CUDA; the loss is scaled so that small gradients are not lost.
        F16 = "f16",
    }
}
