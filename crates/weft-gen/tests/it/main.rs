//! Generators on tiny networks: one binary, a module a subject.

mod adapters;
mod conditions;
mod examples;
mod flow;
mod golden;
mod guide;
mod hostile;
mod hyper;
mod inputs;
mod predictor;
mod refiner;
mod ridge;
mod samplers;
mod support;
mod tasks;
mod tokens;
mod trivial;
