//! What clients and server of one trial share: the recorded flows, the work, and a journal of
//! events.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::text;
use crate::flow::Flow;

/// What a client, by its number, or the server did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Asks(usize),
    Leaves(usize),
    Accepts(usize),
    Answers(usize, ThreadId),
}

pub(super) struct Trial {
    flows: Vec<Flow>,
    /// How long the server works on each request.
    pub(super) work_time: Duration,
    journal: Mutex<Vec<Event>>,
    /// Requests that the server is working on.
    busy: AtomicUsize,
    max_busy: AtomicUsize,
}

impl Trial {
    pub(super) fn new(clients: usize, work_time: Duration) -> Arc<Self> {
        Arc::new(Self {
            flows: (1..=clients).map(|number| Flow::new(text::flow(number))).collect(),
            work_time,
            journal: Mutex::default(),
            busy: AtomicUsize::new(0),
            max_busy: AtomicUsize::new(0),
        })
    }

    /// The numbers of the clients.
    pub(super) fn clients(&self) -> RangeInclusive<usize> {
        1..=self.flows.len()
    }

    /// The requests of a client.
    pub(super) fn flow(&self, number: usize) -> &Flow {
        &self.flows[number - 1]
    }

    pub(super) fn note(&self, event: Event) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Returns the events so far, in their order.
    pub(super) fn journal(&self) -> Vec<Event> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn begin_work(&self) {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_busy.fetch_max(busy, Ordering::SeqCst);
    }

    /// Notes that a request is done; returns the answer to it.
    pub(super) fn end_work(&self, number: usize, line: &str) -> Vec<u8> {
        self.busy.fetch_sub(1, Ordering::SeqCst);
        self.note(Event::Answers(number, thread::current().id()));
        format!("{line}\n").into_bytes()
    }

    /// Returns how many requests the server worked on at once, at most.
    pub(super) fn max_busy(&self) -> usize {
        self.max_busy.load(Ordering::SeqCst)
    }
}
