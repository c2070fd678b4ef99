//! Methods for flow matching that ask the network twice in a step: Heun's
//! (diffusers/schedulers/scheduling_flow_match_heun_discrete.py, 0.42.1) and the midpoint rule, which
//! diffusers does not have. What the network predicts, and when it is asked first, is as in
//! [`FlowEuler`](super::flow_euler).

use serde::Serialize;
use tch::{Kind, Tensor};

use super::{
    NoiseDraw, NoiseSchedule, Solver, SolverStep,
    betas::{check_train_timesteps, one_minus},
    flow_euler::{FlowEuler, FlowEulerConfig},
    per_sample,
    sigmas::step_indices,
};
use crate::{error::Result, nn::config::Config};

/// `FlowMatchHeunDiscreteScheduler`'s configuration; the default is upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowTwoStageConfig {
    /// 2 to 1,000,000.
    pub num_train_timesteps: i64,
    /// Above 0, at most 1e6; above 1 more of the steps are at high noise levels.
    pub shift: f64,
    /// As [`FlowEulerConfig::even`].
    #[serde(skip)]
    pub even: bool,
}

impl Default for FlowTwoStageConfig {
    fn default() -> Self {
        Self { num_train_timesteps: 1000, shift: 1.0, even: false }
    }
}

impl FlowTwoStageConfig {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let default = Self::default();
        if config.get("invert_sigmas", false)? {
            return Err(config.unsupported(
                "invert_sigmas",
                "diffusers' class does not know the key and makes noise of such networks: sample with flow-euler",
            ));
        }
        Ok(Self {
            num_train_timesteps: config.get("num_train_timesteps", default.num_train_timesteps)?,
            shift: config.get("shift", default.shift)?,
            even: false,
        })
    }
}

/// Where a step asks the network a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecondStage {
    /// At the step's end; the step goes along the mean of both velocities. The last step, which ends
    /// without noise, has no second stage.
    End,
    /// Half way; the step goes along the velocity found there.
    Middle,
}

/// A step's start, until its second stage.
struct StageStart {
    sample: Tensor,
    velocity: Tensor,
}

pub(super) struct FlowTwoStage {
    levels: FlowEuler,
    second: SecondStage,
    /// The level of each call of the network, as the timesteps, and the level at which the step ends.
    calls: Vec<(f32, f32)>,
    timesteps: Vec<f32>,
    start: Option<StageStart>,
}

impl FlowTwoStage {
    pub(super) fn new(config: &FlowTwoStageConfig, second: SecondStage) -> Result<Self> {
        check_train_timesteps(config.num_train_timesteps)?;
        let levels = FlowEuler::new(&FlowEulerConfig {
            num_train_timesteps: config.num_train_timesteps,
            shift: config.shift,
            even: config.even,
            ..FlowEulerConfig::default()
        })?;
        Ok(Self { levels, second, calls: Vec::new(), timesteps: Vec::new(), start: None })
    }
}

impl Solver for FlowTwoStage {
    fn trained(&self) -> i64 {
        self.levels.trained()
    }

    fn schedule(&self) -> Option<&NoiseSchedule> {
        None
    }

    fn set_timesteps(&mut self, steps: i64) -> Result<Vec<f32>> {
        self.start = None;
        self.levels.set_timesteps(steps)?;
        let levels: Vec<f32> = Vec::try_from(self.levels.sigmas())?;
        self.calls = levels
            .windows(2)
            .flat_map(|pair| {
                let (from, to) = (pair[0], pair[1]);
                let second = match self.second {
                    SecondStage::End => (to > 0.0).then_some(to),
                    SecondStage::Middle => Some((from + to) / 2.0),
                };
                [Some((from, to)), second.map(|level| (level, to))].into_iter().flatten()
            })
            .collect();
        self.timesteps = self.calls.iter().map(|(level, _)| level * self.trained() as f32).collect();
        Ok(self.timesteps.clone())
    }

    fn step(&mut self, step: &SolverStep, _: &mut NoiseDraw) -> Result<Tensor> {
        let SolverStep { index, model_output: velocity, sample, .. } = *step;
        let (level, end) = self.calls[index];
        let kind = velocity.kind();
        let next = match self.start.take() {
            Some(StageStart { sample, velocity: first }) => {
                // The first stage's level, which is one call back.
                let difference = f64::from(end - self.calls[index - 1].0);
                match self.second {
                    SecondStage::End => sample + (first + velocity) * 0.5 * difference,
                    SecondStage::Middle => sample + velocity * difference,
                }
            }
            None => {
                let sample = sample.to_kind(Kind::Float);
                // Where the network is asked next: the second stage, or the step's end.
                let second = self
                    .calls
                    .get(index + 1)
                    .map(|call| call.0)
                    .filter(|_| self.second == SecondStage::Middle || end > 0.0);
                let next = &sample + velocity * f64::from(second.unwrap_or(end) - level);
                self.start = second.map(|_| StageStart { sample, velocity: velocity.shallow_clone() });
                next
            }
        };
        Ok(next.to_kind(kind))
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let indices = step_indices(&self.timesteps, timesteps, None)?;
        let levels: Vec<f32> = self.calls.iter().map(|(level, _)| *level).collect();
        let sigma = per_sample(&Tensor::f_from_slice(&levels)?, &indices, original)?;
        Ok(&sigma * noise + one_minus(&sigma) * original)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::schedulers::{Scheduler, SchedulerConfig};

    /// The end of x' = f(x, sigma) from sigma 1 to 0, and how often f was asked.
    fn solved(config: &SchedulerConfig, steps: usize, f: impl Fn(&Tensor, f64) -> Tensor) -> (f64, usize) {
        let mut scheduler = Scheduler::new(config).unwrap();
        scheduler.set_timesteps(steps).unwrap();
        let mut sample = Tensor::ones([1, 1], (Kind::Float, tch::Device::Cpu));
        let timesteps = scheduler.timesteps().to_vec();
        for &timestep in &timesteps {
            let velocity = f(&sample, f64::from(timestep) / 1000.0);
            sample = scheduler.step(&velocity, timestep, &sample, &mut |_| unreachable!()).unwrap();
        }
        (sample.double_value(&[0, 0]), timesteps.len())
    }

    #[test]
    fn two_stages_are_second_order() {
        // x' = x from 1 at sigma 1: exp(-1) at 0.
        let exact = (-1f64).exp();
        let error = |config: &SchedulerConfig, steps: usize| {
            (solved(config, steps, |x, _| x.shallow_clone()).0 - exact).abs()
        };
        let even = FlowTwoStageConfig { even: true, ..FlowTwoStageConfig::default() };
        let midpoint = SchedulerConfig::FlowMidpoint(even.clone());
        let euler = SchedulerConfig::FlowEuler(FlowEulerConfig { even: true, ..FlowEulerConfig::default() });
        let ratio = |config: &SchedulerConfig| error(config, 10) / error(config, 20);
        assert!((3.6..4.4).contains(&ratio(&midpoint)), "{}", ratio(&midpoint));
        assert!((1.8..2.2).contains(&ratio(&euler)), "{}", ratio(&euler));
        // Heun's last step is one of Euler's.
        let heun = SchedulerConfig::FlowHeun(even);
        assert!(error(&heun, 20) < error(&euler, 20) / 5.0);
        assert_eq!(solved(&midpoint, 7, |x, _| x.shallow_clone()).1, 14);
        assert_eq!(solved(&heun, 7, |x, _| x.shallow_clone()).1, 13);
        assert_eq!(solved(&heun, 1, |x, _| x.shallow_clone()).1, 1);
    }
}
