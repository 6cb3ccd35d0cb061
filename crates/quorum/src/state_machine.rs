//! The cluster image as Raft's state machine.
//!
//! The image lives in memory. After a restart it is rebuilt from the newest snapshot and the log behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;
use vltava_host::task;
use vltava_metadata::{ClusterImage, codec};
use vltava_types::MetadataOffset;

use crate::log_store::LOG_DIRECTORY;
use crate::reserve::Reserve;
use crate::snapshot;
use crate::types::{Applied, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term_of};

/// Applies committed entries and publishes the resulting images.
pub(crate) struct StateMachine {
    directory: PathBuf,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    image: ClusterImage,
    images: watch::Sender<Arc<ClusterImage>>,
    reserve: Arc<Reserve>,
}

impl StateMachine {
    /// The state of the newest snapshot. The log's directory must exist; `reserve` is the log's.
    pub async fn open(
        metadata_log_dir: &Path,
        images: watch::Sender<Arc<ClusterImage>>,
        reserve: Arc<Reserve>,
    ) -> io::Result<Self> {
        let directory = metadata_log_dir.join(LOG_DIRECTORY);
        let (membership, image) = (StoredMembership::default(), ClusterImage::default());
        let mut machine = Self { directory, last_applied: None, membership, image, images, reserve };
        if let Some(snapshot) = machine.read_snapshot().await? {
            machine.restore(&snapshot.meta, &snapshot.snapshot)?;
        }
        Ok(machine)
    }

    async fn read_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let directory = self.directory.clone();
        task::blocking(move || snapshot::read_newest(&directory)).await
    }

    fn restore(&mut self, meta: &SnapshotMeta, snapshot: &[u8]) -> io::Result<()> {
        let records = codec::decode_records(snapshot).map_err(invalid_data)?;
        let mut image = ClusterImage::default();
        image.replay_all(&records);
        stamp(&mut image, meta.last_log_id.as_ref());
        self.image = image;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        // Raft may install a snapshot that this node has outrun: nobody must see time go back.
        if self.images.borrow().offset <= self.image.offset {
            self.images.send_replace(Arc::new(self.image.clone()));
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut answers = Vec::new();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let applied = match &entry.payload {
                Payload::Normal(set) if set.term == term_of(&entry.log_id) => {
                    let records = codec::decode_records(&set.records).map_err(invalid_data)?;
                    self.image.replay_all(&records);
                    Applied::Replayed
                }
                Payload::Normal(_) | Payload::Blank => Applied::Nothing,
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
                    Applied::Nothing
                }
            };
            self.last_applied = Some(entry.log_id);
            stamp(&mut self.image, Some(&entry.log_id));
            if let Some(responder) = responder {
                answers.push((responder, applied));
            }
        }
        // First the image, then the answers: whoever gets one must find its effect.
        self.publish();
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            directory: self.directory.clone(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            image: self.image.clone(),
            reserve: Arc::clone(&self.reserve),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        // Decoded first: what cannot be read must not replace what can.
        codec::decode_records(&snapshot).map_err(invalid_data)?;
        let (directory, meta_to_write, records) = (self.directory.clone(), meta.clone(), snapshot.clone());
        let reserve = Arc::clone(&self.reserve);
        task::blocking(move || reserve.with_room(|| snapshot::write(&directory, &meta_to_write, &records))).await?;
        self.restore(meta, &snapshot)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.read_snapshot().await
    }
}

/// A view of the image, to be written while newer entries are applied.
pub(crate) struct SnapshotBuilder {
    directory: PathBuf,
    meta: SnapshotMeta,
    image: ClusterImage,
    reserve: Arc<Reserve>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (directory, meta, image) = (self.directory.clone(), self.meta.clone(), self.image.clone());
        let reserve = Arc::clone(&self.reserve);
        task::blocking(move || {
            let records = Bytes::from(codec::encode_records(&image.to_records()));
            reserve.with_room(|| snapshot::write(&directory, &meta, &records))?;
            Ok(Snapshot { meta, snapshot: records })
        })
        .await
    }
}

/// An image says how far it has come.
fn stamp(image: &mut ClusterImage, log_id: Option<&LogId>) {
    if let Some(log_id) = log_id {
        image.offset = MetadataOffset(i64::try_from(log_id.index).expect("an index stays below 2^63"));
        image.term = i64::try_from(term_of(log_id)).expect("a term stays below 2^63");
    }
}

fn invalid_data(error: codec::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
