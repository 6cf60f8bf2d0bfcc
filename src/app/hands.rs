//! Hands: carry out what the core wants done to services. Each service has a queue of its own, so that what is asked
//! for in order is done in order, and one service's slow engine call keeps no other waiting.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::core::Input;
use crate::core::io::RollbackRequest;
use crate::core::release::{RollbackId, ServiceName};
use crate::rollback::Executor;
use crate::rollback::mitigation::Errand;

/// What is done to a service.
#[derive(Debug)]
pub(super) enum Job {
    Mitigate(Errand),
    Prepare(RollbackRequest),
    Discard(RollbackId),
    RollBack(RollbackRequest),
    RollBackTogether(Vec<RollbackRequest>),
    /// It is over, and proved or not.
    Close(RollbackId, bool),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hands {
    executor: Executor,
    inputs: mpsc::Sender<Input>,
    /// Unbounded, since the core bounds it: one suspicion or one rollback a service at a time.
    queues: HashMap<ServiceName, mpsc::UnboundedSender<Job>>,
    /// Whose rollback it is, for jobs that name only the rollback.
    owners: HashMap<RollbackId, ServiceName>,
    tasks: TaskTracker,
}

impl Hands {
    pub(super) fn new(executor: Executor, inputs: mpsc::Sender<Input>, tasks: TaskTracker) -> Self {
        Self { executor, inputs, queues: HashMap::new(), owners: HashMap::new(), tasks }
    }

    /// Remembers whose rollback it is: one that an earlier process began.
    pub(super) fn owns(&mut self, rollback: RollbackId, service: ServiceName) {
        self.owners.insert(rollback, service);
    }

    /// Queues a job for a service.
    pub(super) fn give(&mut self, service: ServiceName, job: Job) {
        if let Job::Prepare(request) | Job::RollBack(request) = &job {
            self.owners.insert(request.id.clone(), service.clone());
        }
        let (executor, inputs, tasks) = (&self.executor, &self.inputs, &self.tasks);
        let queue = self.queues.entry(service).or_insert_with(|| {
            let (queue, jobs) = mpsc::unbounded_channel();
            tasks.spawn(work(executor.clone(), inputs.clone(), jobs));
            queue
        });
        // The worker lives as long as its queue.
        let _ = queue.send(job);
    }

    /// Queues what is done to several services together. Each one's own jobs still wait for each other.
    pub(super) fn give_together(&mut self, requests: Vec<RollbackRequest>) {
        for request in &requests {
            self.owners.insert(request.id.clone(), request.service.clone());
        }
        if let Some(first) = requests.first().map(|request| request.service.clone()) {
            self.give(first, Job::RollBackTogether(requests));
        }
    }

    /// Queues the last job of a rollback for the service that it belongs to.
    pub(super) fn give_owner(&mut self, rollback: &RollbackId, job: Job) {
        match self.owners.remove(rollback) {
            Some(service) => self.give(service, job),
            None => {
                warn!(%rollback, "nobody knows whose rollback this is; its journal is left for the next start")
            }
        }
    }

    /// Takes no more jobs: workers end when what they have is done.
    pub(super) fn close(&mut self) {
        self.queues.clear();
    }
}

async fn work(executor: Executor, inputs: mpsc::Sender<Input>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Mitigate(errand) => {
                let result = executor.mitigate(&errand).await;
                let (id, service) = (errand.id, errand.service);
                let _ = inputs.send(Input::Mitigated { id, service, result }).await;
            }
            Job::Prepare(request) => {
                let result = executor.prepare(&request).await;
                if let Err(why) = &result {
                    warn!(service = %request.service, to = %request.to, "the replacement could not be prepared: {why}");
                }
                let (rollback, service) = (request.id, request.service);
                let _ = inputs.send(Input::Prepared { rollback, service, result }).await;
            }
            Job::Discard(rollback) => executor.discard(&rollback).await,
            Job::RollBack(request) => {
                let result = executor.execute(&request).await;
                let (rollback, service) = (request.id, request.service);
                let _ = inputs.send(Input::Executed { rollback, service, result }).await;
            }
            Job::RollBackTogether(requests) => {
                let results = executor.execute_together(&requests).await;
                for (request, result) in requests.into_iter().zip(results) {
                    let (rollback, service) = (request.id, request.service);
                    let _ = inputs.send(Input::Executed { rollback, service, result }).await;
                }
            }
            Job::Close(rollback, proved) => {
                for note in executor.conclude(&rollback, proved).await {
                    // It may print secrets: whoever needs it reads it in the journal of the rollback.
                    debug!(%rollback, "last log lines: {note}");
                }
            }
        }
    }
}
