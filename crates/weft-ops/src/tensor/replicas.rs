//! The same parameters on one device or several, each of which learns from its part of every batch.

use crate::backend::{Backend, OptimizerStep};
use std::panic::resume_unwind;

/// A backend with the parameters that it holds.
pub(super) struct Held<B: Backend> {
    pub(super) backend: B,
    pub(super) parameters: B::Parameters,
    /// The sum of losses since it was last read.
    pub(super) loss: B::Wide,
}

/// Devices with the same parameters.
///
/// Between two steps all of them hold the same bits: they start from the same values, and take each step with the sum of their
/// gradients. What a device has of a gradient is its own until then.
pub(super) struct Replicas<B: Backend> {
    /// There is one at least.
    held: Vec<Held<B>>,
    /// None where there is a single device.
    group: Option<B::Group>,
}

impl<B: Backend> Replicas<B> {
    /// Puts parameters on each device.
    pub(super) fn new(backends: Vec<B>, theta: &[f32], trained: bool) -> crate::Result<Self> {
        let group = if backends.len() > 1 { Some(B::join(&backends)?) } else { None };
        let hold = |backend: B| Ok(Held { parameters: backend.parameters(theta, trained)?, loss: backend.zeros_wide(1)?, backend });
        let held = backends.into_iter().map(hold).collect::<crate::Result<Vec<_>>>()?;
        assert!(!held.is_empty(), "parameters of no device");
        Ok(Self { held, group })
    }

    /// Devices.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// All devices, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held<B>> {
        self.held.iter()
    }

    /// The device that is read from, and that tensors are on.
    pub(super) fn first(&self) -> &Held<B> {
        &self.held[0]
    }

    /// The same, to be changed.
    pub(super) fn first_mut(&mut self) -> &mut Held<B> {
        &mut self.held[0]
    }

    /// Does the same on all devices at once, a thread each; `work` is told the device's place.
    ///
    /// A device that fails gives the group up before the others are waited for, since they may wait for its part of an earlier sum.
    pub(super) fn each<R: Send>(&mut self, work: impl Fn(usize, &mut Held<B>) -> crate::Result<R> + Sync) -> crate::Result<Vec<R>> {
        let Some(group) = &self.group else { return Ok(vec![work(0, &mut self.held[0])?]) };
        let work = |place, held: &mut Held<B>| work(place, held).inspect_err(|_| B::abort(group));
        let work = &work;
        let mut held = self.held.iter_mut().enumerate();
        let first = held.next();
        std::thread::scope(|scope| {
            let threads: Vec<_> = held.map(|(place, held)| scope.spawn(move || work(place, held))).collect();
            let first = first.map(|(place, held)| work(place, held));
            let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            first.into_iter().chain(others).collect()
        })
    }

    /// Sums the gradient over all devices, and takes the same step on each.
    pub(super) fn step(&mut self, step: &OptimizerStep) -> crate::Result<()> {
        if let Some(group) = &self.group {
            let gradients = self.held.iter_mut().map(|held| held.backend.theta_and_gradient(&mut held.parameters).1);
            B::all_reduce(group, &mut gradients.collect::<Vec<_>>())?;
        }
        let stepped = self.held.iter_mut().try_for_each(|held| held.backend.optimizer_step(&mut held.parameters, step));
        stepped.inspect_err(|_| self.group.iter().for_each(B::abort))
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::{Backend, Slot};
    use crate::tensor::{
        FlatOptimizer, FlatOptimizerConfig, Lesson, Network, Parameters, Pass, Precision, Ran, ResidualMlp, ResidualMlpConfig,
        Transformer, TransformerConfig, regress,
    };
    use candle_core::Device;
    use weft_core::{Activation, Seed};

    fn residual() -> ResidualMlp {
        ResidualMlp::new(ResidualMlpConfig { inputs: 5, conditioning: 3, width: 16, blocks: 2, outputs: 4 })
    }

    fn transformer() -> Transformer {
        Transformer::new(TransformerConfig {
            inputs: 5,
            outputs: 4,
            tokens: 3,
            positions: true,
            d_model: 16,
            num_heads: 2,
            num_layers: 2,
            hidden: 32,
            activation: Activation::Gelu,
            gated: false,
            causal: false,
            conditioning: 2,
        })
    }

    fn optimizer<N: Network>(network: &N, theta: &[f32], devices: usize, precision: Precision) -> FlatOptimizer {
        assert_eq!(theta.len(), network.num_parameters());
        let config = FlatOptimizerConfig { weight_decay: 0.01, clip_norm: 1.0, ema_decay: 0.9 };
        FlatOptimizer::new(config, theta, &vec![Device::Cpu; devices], precision).unwrap()
    }

    /// Losses of 20 steps with another batch each, and the parameters after them.
    fn train<N: Network>(
        network: &N,
        theta: &[f32],
        (sequences, weighted): (usize, bool),
        (devices, precision): (usize, Precision),
    ) -> (Vec<f64>, Vec<f32>) {
        let mut optimizer = optimizer(network, theta, devices, precision);
        let rows = sequences * network.rows_at_once();
        let [inputs, outputs] = network.features();
        let condition = network.conditioning().map_or(0, |[features, group]| rows / group * features);
        let losses = (0..20).map(|step| {
            let seed = Seed::new(7).index(step);
            let normals = |name, len| seed.fork(name).normals(len);
            let (inputs, targets) = (normals("inputs", rows * inputs), normals("targets", rows * outputs));
            let condition = normals("condition", condition);
            let weights = if weighted { seed.fork("weights").uniforms(rows) } else { Vec::new() };
            let lesson = Lesson { inputs: &inputs, condition: &condition, targets: &targets, weights: &weights };
            regress(network, &lesson, optimizer.parameters()).unwrap();
            optimizer.update(0.01).unwrap();
            optimizer.parameters().take_loss().unwrap()
        });
        let losses = losses.collect();
        assert!(optimizer.parameters().agree().unwrap(), "{devices} devices differ");
        (losses, optimizer.parameters().read(Slot::Theta).unwrap())
    }

    /// A global batch is learnt from alike on one device and on several, also where it does not divide.
    fn check<N: Network>(network: &N, theta: &[f32]) {
        for (sequences, weighted) in [(8, false), (7, true), (2, true), (1, false)] {
            for (precision, tolerance) in [(Precision::Single, 2e-5), (Precision::Double, 1e-6)] {
                let (losses, theta_of_one) = train(network, theta, (sequences, weighted), (1, precision));
                for devices in [2, 3] {
                    let (got, theta) = train(network, theta, (sequences, weighted), (devices, precision));
                    let case = format!("{network:?}: {sequences} sequences, weighted {weighted}, {devices} devices, {precision:?}");
                    for (got, expected) in got.iter().zip(&losses) {
                        assert!((got - expected).abs() <= tolerance * expected, "{case}: {got} for {expected}");
                    }
                    let apart = theta.iter().zip(&theta_of_one).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
                    assert!(apart < 1e-3, "{case}: parameters are {apart} apart");
                }
            }
        }
    }

    #[test]
    fn several_devices_learn_what_one_does() {
        let (residual, transformer) = (residual(), transformer());
        check(&residual, &residual.initial(Seed::new(1)));
        check(&transformer, &transformer.initial(Seed::new(2)));
    }

    #[test]
    fn vectors_are_written_to_all_devices_and_gradients_once() {
        let network = residual();
        let mut optimizer = optimizer(&network, &network.initial(Seed::new(1)), 3, Precision::Single);
        for slot in [Slot::Theta, Slot::Average, Slot::First, Slot::Second, Slot::Gradient] {
            let values: Vec<f32> = Seed::new(2).uniforms(network.num_parameters());
            optimizer.parameters().write(slot, &values).unwrap();
            assert_eq!(optimizer.parameters().read(slot).unwrap(), values, "{slot:?}");
        }
        optimizer.update(0.1).unwrap();
        assert!(optimizer.parameters().agree().unwrap());
        let gradient = optimizer.parameters().read(Slot::Gradient).unwrap();
        assert!(gradient.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn devices_of_two_kinds_or_none_are_refused() {
        let refused = |devices: &[Device]| Parameters::on_devices(&[1.0], devices, Precision::Single).unwrap_err().to_string();
        assert!(refused(&[]).contains("need a device"));
        let error = Parameters::on_devices(&[1.0], &[Device::Cpu, Device::Cpu], Precision::Bfloat16).unwrap_err();
        assert!(error.to_string().contains("do not compute in BF16"), "{error}");
    }

    /// A network that fails on one device: that of the smaller part.
    #[derive(Debug, Clone)]
    struct Faulty(ResidualMlp);

    impl Network for Faulty {
        type Saved<B: Backend + 'static> = <ResidualMlp as Network>::Saved<B>;

        fn num_parameters(&self) -> usize {
            self.0.num_parameters()
        }

        fn features(&self) -> [usize; 2] {
            self.0.features()
        }

        fn conditioning(&self) -> Option<[usize; 2]> {
            self.0.conditioning()
        }

        fn rows_at_once(&self) -> usize {
            1
        }

        fn forward<B: Backend + 'static>(
            &self,
            pass: Pass<'_, B>,
            x: B::View<'_>,
            condition: Option<B::View<'_>>,
        ) -> crate::Result<Ran<B, Self>> {
            if pass.rows < 4 {
                return Err(candle_core::Error::Msg("a fault".to_owned()).into());
            }
            Network::forward(&self.0, pass, x, condition)
        }

        fn backward<B: Backend + 'static>(
            &self,
            pass: Pass<'_, B>,
            inputs: (B::View<'_>, Option<B::View<'_>>),
            saved: Self::Saved<B>,
            dy: B::View<'_>,
            gradient: &mut B::Wide,
        ) -> crate::Result<(B::Buffer, Option<B::Buffer>)> {
            self.0.backward(pass, inputs, saved, dy, gradient)
        }
    }

    #[test]
    fn a_device_that_fails_is_an_error_of_all() {
        let network = Faulty(residual());
        let optimizer = optimizer(&network, &network.0.initial(Seed::new(1)), 2, Precision::Single);
        let lesson = Lesson { inputs: &[0.5; 35], condition: &[0.5; 21], targets: &[0.5; 28], weights: &[] };
        let error = regress(&network, &lesson, optimizer.parameters()).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("a fault"));
    }
}
