//! A worker that can be stopped and resumed like a process that gets SIGSTOP and SIGCONT: all its tasks and its connections
//! run on one thread, and that thread stands still. (Its media thread does not; a paused process's would.)

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use common::model::WorkerId;
use media_worker::{Worker, WorkerConfig};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::System;

pub struct Pausable {
    worker: Arc<Worker>,
    handle: Handle,
    paused: Arc<(Mutex<bool>, Condvar)>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pausable {
    pub async fn start(system: &System, config: WorkerConfig) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let (give_handle, handle) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            give_handle.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(ended);
        });
        let handle = handle.await.unwrap();
        let connect = system.connector();
        let store = system.store.clone();
        let worker = handle.spawn(async move { Worker::start(config, connect.open().await, store).await });
        let worker = Arc::new(worker.await.unwrap().expect("the worker starts"));
        Self { worker, handle, paused: Arc::default(), end: Some(end), thread: Some(thread) }
    }

    pub fn id(&self) -> WorkerId {
        self.worker.id()
    }

    pub async fn endpoints(&self) -> u64 {
        self.worker.media().stats().await.expect("the media thread runs").endpoints
    }

    pub fn pause(&self) {
        *self.paused.0.lock().unwrap() = true;
        let paused = self.paused.clone();
        self.handle.spawn(async move {
            let guard = paused.0.lock().unwrap();
            drop(paused.1.wait_while(guard, |paused| *paused).unwrap());
        });
    }

    pub fn resume(&self) {
        *self.paused.0.lock().unwrap() = false;
        self.paused.1.notify_all();
    }
}

impl Drop for Pausable {
    fn drop(&mut self) {
        self.resume();
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
