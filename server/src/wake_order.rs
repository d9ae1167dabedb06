//! Polls futures of one task in the order in which they were woken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The futures that were woken, in order, and the task that polls them.
#[derive(Debug)]
struct Woken {
    order: VecDeque<usize>,
    task: Waker,
}

/// Wakes one of the futures.
#[derive(Debug)]
struct IndexWaker {
    index: usize,
    woken: Arc<Mutex<Woken>>,
}

impl Wake for IndexWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !woken.order.contains(&self.index) {
            woken.order.push_back(self.index);
        }
        woken.task.wake_by_ref();
    }
}

/// Waits for both futures. Of two that are ready, the one that was woken first is polled first: the
/// runtime wakes readers of pipes in the order in which data has arrived there (epoll(7)).
pub(crate) async fn join(first: impl Future + Send, second: impl Future + Send) {
    let (first, second) = (pin!(async { drop(first.await) }), pin!(async { drop(second.await) }));
    let mut futures: [Option<Pin<&mut (dyn Future<Output = ()> + Send)>>; 2] =
        [Some(first), Some(second)];
    let woken = Woken { order: [0, 1].into(), task: Waker::noop().clone() };
    let woken = Arc::new(Mutex::new(woken));
    let wakers =
        [0, 1].map(|index| Waker::from(Arc::new(IndexWaker { index, woken: woken.clone() })));
    poll_fn(move |context| {
        let order = {
            let mut woken = woken.lock().unwrap_or_else(PoisonError::into_inner);
            woken.task.clone_from(context.waker());
            std::mem::take(&mut woken.order)
        };
        for index in order {
            let polled = futures[index]
                .as_mut()
                .map(|future| future.as_mut().poll(&mut Context::from_waker(&wakers[index])));
            if polled == Some(Poll::Ready(())) {
                futures[index] = None;
            }
        }
        if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_woken_first_is_polled_first() {
        for swapped in [false, true] {
            let seen = Mutex::new(Vec::new());
            let ((one, first), (two, second)) = (oneshot::channel(), oneshot::channel());
            let note = |number, woken: oneshot::Receiver<()>| {
                let seen = &seen;
                async move {
                    woken.await.expect("it is sent");
                    seen.lock().expect("no panic").push(number);
                }
            };
            let senders = async move {
                tokio::task::yield_now().await;
                for sender in if swapped { [two, one] } else { [one, two] } {
                    sender.send(()).expect("it is waited for");
                }
            };
            tokio::join!(join(note(1, first), note(2, second)), senders);
            assert_eq!(*seen.lock().expect("no panic"), if swapped { [2, 1] } else { [1, 2] });
        }
    }
}
