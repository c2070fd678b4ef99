//! How generators make images.

use super::{Metric, words};

words! {
    /// What an image is made from.
    Mode {
        Unconditional = "unconditional",
        Text = "text",
        TextSegmentation = "text+segmentation",
        /// A real image, of which a part is kept and the rest generated.
        Inpaint = "inpaint",
        /// Images that another program made.
        External = "external",
    }
}

words! {
    /// The part of a real image that inpainting keeps.
    KeptPart {
        /// The annotated heart and its border: the mask stays true.
        Heart = "heart",
        /// The middle of the ultrasound sector, and with it all of the heart.
        SectorCentre = "sector-centre",
    }
}

words! {
    /// How noise and image are mixed in training, and what leads from one to the other.
    Objective {
        /// Noise is added in a thousand timesteps, and the network predicts it (or v).
        Diffusion = "diffusion",
        /// Noise and image are the ends of a straight line, and the network predicts the velocity along it (Lipman et
        /// al., arXiv 2210.02747).
        Flow = "flow",
    }
}

words! {
    /// How the share of noise is drawn for an image in training by flow matching.
    TimeSampling {
        /// Evenly from 0 to 1.
        Uniform = "uniform",
        /// The logistic function of a standard normal number: most often half noise, half image (Esser et al., arXiv
        /// 2403.03206).
        LogitNormal = "logit-normal",
        /// Each of the two for half of the images.
        Mixed = "mixed",
    }
}

words! {
    /// Which weights of a generator's training make its images.
    GeneratorCheckpoint {
        Last = "last",
        /// The lowest kernel inception distance from training images.
        Kid = "kid",
        /// The largest share of images in which a classifier sees the right view.
        ViewAccuracy = "view-accuracy",
        /// The largest mean Dice of what a segmentation network sees with the control masks.
        LabelDice = "label-dice",
    }
}

impl GeneratorCheckpoint {
    /// What is compared at the checkpoints; none if the last one is taken.
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::Last => None,
            Self::Kid => Some(Metric::Kid),
            Self::ViewAccuracy => Some(Metric::ViewAccuracy),
            Self::LabelDice => Some(Metric::Dice),
        }
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
        /// Euler's steps of networks that were trained by flow matching. The next two are for those as well.
        FlowEuler = "flow-euler",
        /// Heun's: each step but the last asks the network twice.
        FlowHeun = "flow-heun",
        /// The midpoint rule: each step asks the network twice.
        FlowMidpoint = "flow-midpoint",
    }
}

impl Sampler {
    /// Whether it samples networks that were trained by flow matching, and no others.
    pub fn is_flow_matching(self) -> bool {
        matches!(self, Self::FlowEuler | Self::FlowHeun | Self::FlowMidpoint)
    }

    /// Whether its steps can lie at these noise levels.
    pub fn has_levels(self, levels: NoiseLevels) -> bool {
        match levels {
            NoiseLevels::Timesteps => true,
            NoiseLevels::Karras => {
                matches!(self, Self::UniPc | Self::DpmSolver | Self::Euler | Self::Heun | Self::FlowEuler)
            }
            NoiseLevels::LogSnr => matches!(self, Self::DpmSolver | Self::Euler | Self::Heun),
            NoiseLevels::Even => self.is_flow_matching(),
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
        /// Evenly in the share of noise, from 1 down to one step above 0: for networks trained by flow matching.
        Even = "even",
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
        /// bf16 where the device has instructions for it, else f32. A resolved spec says which of the two.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
        /// Only for generators on CUDA; the loss is scaled so that small gradients are not lost.
        F16 = "f16",
    }
}
