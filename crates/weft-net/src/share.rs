//! Independent work on several devices.

use crate::Device;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;
use weft_core::{Event, Monitor};

/// How long a stop that the user asks for may go unnoticed.
const PATIENCE: Duration = Duration::from_millis(50);

/// Does each job on one of the devices: a thread a device, which takes the next job when it is done.
///
/// `work` does a job and `collect` takes its result, on the caller's thread and in the order of the jobs. A job's progress is counted from
/// the job's own start; `monitor` hears the sum over all jobs. With one device everything is done on the caller's thread, one job after the
/// other.
///
/// # Errors
/// The first error of `work` or `collect`; the other devices are asked to stop then.
pub fn share_out<J: Sync, R: Send, E: Send>(
    jobs: &[J],
    (device, monitor): (&Device, &Monitor<'_>),
    work: impl Fn(&J, &Device, &Monitor<'_>) -> Result<R, E> + Sync,
    mut collect: impl FnMut(&J, R) -> Result<(), E>,
) -> Result<(), E> {
    let progress = Progress { of_jobs: Mutex::new(vec![0; jobs.len()]), monitor };
    if device.all().len() < 2 || jobs.len() < 2 {
        return jobs.iter().enumerate().try_for_each(|(job, of)| {
            let sink = |event: Event| progress.hear(job, &event);
            collect(of, work(of, device, &Monitor::new(&sink, monitor.stop_flag()))?)
        });
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(monitor.should_stop()));
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for device in device.each() {
            let (sender, next, stop, progress, work) = (sender.clone(), &next, &stop, &progress, &work);
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(of) = jobs.get(job) else { return };
                    let sink = |event: Event| progress.hear(job, &event);
                    let result = work(of, &device, &Monitor::new(&sink, stop));
                    let has_failed = result.is_err();
                    // Said before the others are stopped, so that what they fail with is not the first error.
                    let is_heard = sender.send((job, result)).is_ok();
                    if has_failed || !is_heard {
                        stop.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
        drop(sender);
        let outcome = in_order(jobs, &receiver, &mut collect, || {
            if monitor.should_stop() {
                stop.store(true, Ordering::Relaxed);
            }
        });
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        outcome
    })
}

/// Collects results in the order of their jobs, and `looks` around while there are none.
fn in_order<J, R, E>(
    jobs: &[J],
    results: &mpsc::Receiver<(usize, Result<R, E>)>,
    mut collect: impl FnMut(&J, R) -> Result<(), E>,
    look: impl Fn(),
) -> Result<(), E> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    loop {
        look();
        match results.recv_timeout(PATIENCE) {
            Ok((job, result)) => early.insert(job, result?),
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        };
        while let Some(result) = early.remove(&next) {
            collect(&jobs[next], result)?;
            next += 1;
        }
    }
}

/// What all jobs have done so far.
struct Progress<'a> {
    of_jobs: Mutex<Vec<u64>>,
    monitor: &'a Monitor<'a>,
}

impl Progress<'_> {
    fn hear(&self, job: usize, event: &Event) {
        if let Event::Progress { done } = event {
            let mut of_jobs = self.of_jobs.lock().unwrap_or_else(PoisonError::into_inner);
            of_jobs[job] = *done;
            // Under the lock, so that it never goes back.
            self.monitor.progress(of_jobs.iter().sum());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jobs of which each waits for the other can only both be done at the same time.
    #[test]
    fn jobs_run_side_by_side_and_are_collected_in_order() {
        let barrier = std::sync::Barrier::new(2);
        let heard = Mutex::new(Vec::new());
        let sink = |event: Event| heard.lock().unwrap().push(event);
        let stop = AtomicBool::new(false);
        let jobs = [4u64, 1, 2, 3];
        let mut collected = Vec::new();
        let work = |&job: &u64, device: &Device, monitor: &Monitor<'_>| -> Result<u64, String> {
            assert_eq!(device.all().len(), 1);
            barrier.wait();
            // The first job of a pair is the slower one.
            std::thread::sleep(Duration::from_millis(if job.is_multiple_of(2) { 20 } else { 0 }));
            monitor.progress(job);
            Ok(10 * job)
        };
        let collect = |&job: &u64, result| {
            collected.push((job, result));
            Ok(())
        };
        share_out(&jobs, (&Device::cpus(2), &Monitor::new(&sink, &stop)), work, collect).unwrap();
        assert_eq!(collected, [(4, 40), (1, 10), (2, 20), (3, 30)]);
        let done = heard.into_inner().unwrap().into_iter().map(|event| match event {
            Event::Progress { done } => done,
            other => panic!("{other:?}"),
        });
        let done: Vec<u64> = done.collect();
        assert!(done.is_sorted() && done.last() == Some(&10), "{done:?}");
    }

    #[test]
    fn the_first_error_stops_the_others() {
        for devices in [1, 2, 3] {
            let work = |&job: &usize, _: &Device, monitor: &Monitor<'_>| {
                if job == 0 {
                    return Err("the first");
                }
                while !monitor.should_stop() {
                    std::thread::yield_now();
                }
                Err("a consequence")
            };
            let jobs: Vec<usize> = (0..10).collect();
            let error = share_out(&jobs, (&Device::cpus(devices), &Monitor::silent()), work, |_, ()| Ok(()));
            assert_eq!(error, Err("the first"), "{devices}");
            let refused = share_out(&jobs, (&Device::cpus(devices), &Monitor::silent()), |&j, _, _| Ok(j), |_, _| Err("refused"));
            assert_eq!(refused, Err("refused"), "{devices}");
        }
    }

    #[test]
    fn a_stop_reaches_every_device() {
        let stop = AtomicBool::new(false);
        let started = AtomicUsize::new(0);
        let work = |(): &(), _: &Device, monitor: &Monitor<'_>| -> Result<(), &str> {
            if started.fetch_add(1, Ordering::Relaxed) == 1 {
                stop.store(true, Ordering::Relaxed);
            }
            while !monitor.should_stop() {
                std::thread::yield_now();
            }
            Err("stopped")
        };
        let monitor = Monitor::new(&|_| {}, &stop);
        let outcome = share_out(&[(); 8], (&Device::cpus(2), &monitor), work, |&(), ()| Ok(()));
        assert_eq!((outcome, started.into_inner()), (Err("stopped"), 2));
    }
}
