//! What an append costs. Run with `--release -- --ignored --nocapture`.

use bytes::BytesMut;
use tokio::time::Instant;
use vltava_protocol::batch::stamp;
use vltava_storage::LogConfig;
use vltava_types::Offset;

use crate::batch::{batch, create, everything};

#[test]
#[ignore = "a measurement"]
fn append_and_read_cost() {
    for (records, rounds) in [(1, 200_000), (100, 50_000), (10_000, 1_000)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut log = create(&directory.path().join("orders-0"), LogConfig::default());
        let mut batch = BytesMut::from(&batch(0, records, 0)[..]);
        let start = Instant::now();
        for i in 0..rounds {
            stamp::set_base_offset(&mut batch, Offset(i * records));
            log.append_as_leader(&batch).expect("appended");
        }
        let append = start.elapsed() / u32::try_from(rounds).expect("few");
        let mut limits = everything();
        limits.max_bytes = 1 << 20;
        let start = Instant::now();
        let mut reads = 0;
        let reader = log.reader();
        let step = (rounds * records / 1000).max(1);
        for offset in (0..rounds * records).step_by(step as usize) {
            reader.read(Offset(offset), limits).expect("readable");
            reads += 1;
        }
        let read = start.elapsed() / reads;
        println!("{} bytes: append {append:?}, read of up to 1 MiB {read:?}", batch.len());
    }
}
