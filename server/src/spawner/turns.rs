//! Shares a resource among those that wait for it in lines: each line takes one turn after the
//! other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A resource that this many may use at the same time; clones share it.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

/// Those that wait one after the other. However many they are, they delay another line by one turn.
#[derive(Debug)]
pub struct Line(Semaphore);

/// A turn, until it is dropped.
pub type Turn = OwnedSemaphorePermit;

impl Turns {
    /// Permits `at_once` turns at the same time.
    pub fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Waits for a turn; `None` after [`Turns::close`]. Cancel safe.
    pub async fn take(&self, line: &Line) -> Option<Turn> {
        // Only the head of each line waits in the semaphore, which serves in the order of arrival:
        // the next of the line arrives there after the heads of all other lines.
        let _head = line.0.acquire().await.ok()?;
        self.0.clone().acquire_owned().await.ok()
    }

    /// Ends the waiting of all lines.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Default for Line {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_long_line_delays_another_by_one_turn() {
        let (turns, lines) = (Turns::new(1), [0, 1].map(|_| Arc::new(Line::default())));
        let (first, order) = (turns.take(&lines[0]).await, Arc::new(Mutex::new(Vec::new())));
        let waiting = [0, 0, 0, 1, 1].map(|number| {
            let (turns, line, order) = (turns.clone(), lines[number].clone(), order.clone());
            tokio::spawn(async move {
                let turn = turns.take(&line).await;
                order.lock().unwrap().push(number);
                drop(turn);
            })
        });
        // All of them wait before the first turn ends.
        tokio::task::yield_now().await;
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 0, 1, 0]);
    }

    #[tokio::test]
    async fn closing_ends_the_waiting() {
        let (turns, line) = (Turns::new(1), Line::default());
        let _first = turns.take(&line).await;
        let (waited, ()) = tokio::join!(turns.take(&line), async { turns.close() });
        assert!(waited.is_none());
    }
}
