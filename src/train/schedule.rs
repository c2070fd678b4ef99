//! Learning rates.

use std::f64::consts::PI;

use crate::experiment::{Schedule, TrainingRecipe};

/// The rate over a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    pub schedule: Schedule,
    pub start: f64,
    pub end: f64,
    /// Steps of linear rise: step k has (k + 1) / `warmup_steps` of the schedule's rate.
    pub warmup_steps: usize,
    /// Of the whole training.
    pub steps: usize,
    pub steps_per_epoch: usize,
}

impl LearningRate {
    pub fn new(recipe: &TrainingRecipe, steps: u64, steps_per_epoch: u64) -> Self {
        Self {
            schedule: recipe.schedule,
            start: recipe.learning_rate,
            end: recipe.final_learning_rate,
            warmup_steps: recipe.warmup_steps,
            steps: steps as usize,
            steps_per_epoch: steps_per_epoch as usize,
        }
    }

    /// The rate of optimizer step `step` (from 0). The cosine is that of PyTorch's
    /// `CosineAnnealingLR(T_max, eta_min)` in closed form.
    pub fn at(&self, step: usize) -> f64 {
        let cosine = |t: f64, period: f64| {
            self.end + (self.start - self.end) * (1.0 + (PI * t / period.max(1.0)).cos()) / 2.0
        };
        let epoch = step / self.steps_per_epoch.max(1);
        let epochs = self.steps as f64 / self.steps_per_epoch.max(1) as f64;
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        warm * match self.schedule {
            Schedule::Constant => self.start,
            Schedule::Cosine => cosine(epoch as f64, epochs),
            Schedule::CosinePerStep => cosine(step as f64, self.steps as f64),
            Schedule::Polynomial => {
                let left = (1.0 - step as f64 / self.steps.max(1) as f64).max(0.0);
                self.end + (self.start - self.end) * left.powf(0.9)
            }
            Schedule::CosinePeriodInEpochsSteppedPerBatch => cosine(step as f64, epochs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faulty_schedule_ends_at_the_highest_rate_and_the_right_one_at_the_lowest() {
        // 400 steps an epoch, 300 epochs: the last step is an even number of half periods in.
        let rate = |schedule| LearningRate {
            schedule,
            start: 1e-3,
            end: 1e-4,
            warmup_steps: 0,
            steps: 300 * 400,
            steps_per_epoch: 400,
        };
        let last = 300 * 400;
        assert!((rate(Schedule::CosinePeriodInEpochsSteppedPerBatch).at(last) - 1e-3).abs() < 1e-12);
        assert!((rate(Schedule::Cosine).at(last) - 1e-4).abs() < 1e-12);
        assert_eq!(rate(Schedule::Cosine).at(0), rate(Schedule::Cosine).at(399));
        assert!(rate(Schedule::CosinePerStep).at(0) > rate(Schedule::CosinePerStep).at(399));
    }

    #[test]
    fn the_polynomial_falls_by_nnu_nets_power() {
        let (start, end, steps) = (1e-2, 0.0, 1000);
        let schedule = Schedule::Polynomial;
        let rate = LearningRate { schedule, start, end, warmup_steps: 0, steps, steps_per_epoch: 7 };
        for (step, expected) in [(0, 1e-2), (250, 7.718_895e-3), (999, 1.995_262e-5), (1000, 0.0)] {
            assert!((rate.at(step) - expected).abs() < 1e-8, "{step}: {}", rate.at(step));
        }
    }

    #[test]
    fn the_warm_up_rises_in_even_steps_to_the_schedule() {
        let rate = LearningRate {
            schedule: Schedule::Constant,
            start: 1e-3,
            end: 0.0,
            warmup_steps: 4,
            steps: 10,
            steps_per_epoch: 10,
        };
        let rates: Vec<f64> = (0..6).map(|step| rate.at(step) * 1e3).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }
}
