//! Tasks that are waited for: every spawned task holds a token, and shutdown is over when all tokens are gone.

use std::future::Future;

use tokio::sync::mpsc;

/// Spawns tasks; cloned into each of them.
#[derive(Clone)]
pub(crate) struct Tasks {
    token: mpsc::Sender<()>,
}

/// Waits until all tasks have ended.
pub(crate) struct AllEnded {
    tokens: mpsc::Receiver<()>,
}

pub(crate) fn tasks() -> (Tasks, AllEnded) {
    let (token, tokens) = mpsc::channel(1);
    (Tasks { token }, AllEnded { tokens })
}

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        tokio::spawn(async move {
            task.await;
            drop(token);
        });
    }
}

impl AllEnded {
    /// Returns when every task has ended and no [`Tasks`] is left to start another.
    pub(crate) async fn wait(&mut self) {
        while self.tokens.recv().await.is_some() {}
    }
}
