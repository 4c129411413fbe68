//! The queue in front of a lane: bounded by frames and by bytes, for a frame is a word or a batch of many MiB, and what waits for a
//! peer that is slow must not fill the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use varve_protocol::frame::{FRAME_HEADER_SIZE, Frame};

use crate::error::SendError;

/// The end that frames are put into.
#[derive(Clone)]
pub(crate) struct QueueSender {
    frames: mpsc::Sender<Frame>,
    /// Bytes of what was put in and is not written yet.
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The end that they are written from.
pub(crate) struct QueueReceiver {
    frames: mpsc::Receiver<Frame>,
    held: Arc<AtomicUsize>,
    /// Bytes of what was taken last.
    taken: usize,
}

/// A queue of so many frames, and of so many bytes unless it is a single frame.
pub(crate) fn queue(frames_max: usize, bytes_max: usize) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(frames_max);
    let held = Arc::new(AtomicUsize::new(0));
    let sender = QueueSender { frames: sender, held: held.clone(), bytes_max };
    (sender, QueueReceiver { frames: receiver, held, taken: 0 })
}

fn size(frame: &Frame) -> usize {
    FRAME_HEADER_SIZE + frame.body.len()
}

impl QueueSender {
    /// Puts a frame in. Never waits.
    ///
    /// # Errors
    /// When the queue is full, or nobody takes anything out any more.
    pub(crate) fn try_send(&self, frame: Frame) -> Result<(), SendError> {
        let size = size(&frame);
        let before = self.held.fetch_add(size, Ordering::Relaxed);
        let sent = if before > 0 && before + size > self.bytes_max {
            Err(SendError::Busy)
        } else {
            self.frames.try_send(frame).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendError::Busy,
                mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
            })
        };
        if sent.is_err() {
            self.held.fetch_sub(size, Ordering::Relaxed);
        }
        sent
    }
}

impl QueueReceiver {
    /// Takes up to `count_max` frames out, and waits for the first; none when nobody puts anything in any more. They count as waiting
    /// until the next call, before which they are to be written.
    pub(crate) async fn take(&mut self, count_max: usize) -> Vec<Frame> {
        self.held.fetch_sub(self.taken, Ordering::Relaxed);
        self.taken = 0;
        let mut frames = Vec::new();
        self.frames.recv_many(&mut frames, count_max).await;
        self.taken = frames.iter().map(size).sum();
        frames
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use varve_protocol::frame::{Command, FrameHeader};
    use varve_protocol::id::ClusterId;

    use super::*;

    fn frame(body: usize) -> Frame {
        let mut frame = Frame::bare(FrameHeader::new(Command::Prepare, ClusterId::new(1)));
        frame.body = Bytes::from(vec![0; body]).into();
        frame
    }

    #[tokio::test]
    async fn what_was_taken_counts_until_it_is_written() {
        let (sender, mut receiver) = queue(8, 1000);
        assert!(sender.try_send(frame(450)).is_ok());
        assert!(
            matches!(sender.try_send(frame(450)), Err(SendError::Busy)),
            "more than a thousand bytes with their headers"
        );
        assert!(sender.try_send(frame(100)).is_ok(), "a refused frame is not counted");
        assert_eq!(receiver.take(1).await.len(), 1);
        assert!(matches!(sender.try_send(frame(450)), Err(SendError::Busy)), "it is not written yet");
        assert_eq!(receiver.take(8).await.len(), 1);
        assert!(sender.try_send(frame(450)).is_ok());
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_bound_goes_alone() {
        let (sender, mut receiver) = queue(8, 1000);
        assert!(sender.try_send(frame(5000)).is_ok());
        assert!(matches!(sender.try_send(frame(0)), Err(SendError::Busy)));
        assert_eq!(receiver.take(8).await.len(), 1);
        drop(sender);
        assert!(receiver.take(8).await.is_empty(), "nobody puts anything in any more");
    }

    #[tokio::test]
    async fn the_number_of_frames_is_bounded_too() {
        let (sender, receiver) = queue(2, 1000);
        assert!(sender.try_send(frame(0)).is_ok() && sender.try_send(frame(0)).is_ok());
        assert!(matches!(sender.try_send(frame(0)), Err(SendError::Busy)));
        drop(receiver);
        assert!(matches!(sender.try_send(frame(0)), Err(SendError::NotConnected)));
    }
}
