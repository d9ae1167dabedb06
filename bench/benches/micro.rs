//! The micro-benchmarks: `cargo bench -p labsh-bench`, or with a filter: `cargo bench -p
//! labsh-bench -- codec`.

use divan::Bencher;
use divan::counter::BytesCount;

fn main() {
    divan::main();
}

mod codec {
    use super::*;
    use bytes::BytesMut;
    use labsh_bench::codec::{self, LARGE, SMALL};
    use labsh_transport::framing;

    #[divan::bench(args = [SMALL, LARGE])]
    fn write(bencher: Bencher<'_, '_>, size: usize) {
        let frames = [codec::frame(size)];
        bencher.counter(BytesCount::new(size)).bench(|| codec::write(&frames));
    }

    #[divan::bench(args = [SMALL, LARGE])]
    fn decode(bencher: Bencher<'_, '_>, size: usize) {
        pieces(bencher, size, usize::MAX);
    }

    #[divan::bench(args = [SMALL, LARGE])]
    fn decode_byte_by_byte(bencher: Bencher<'_, '_>, size: usize) {
        pieces(bencher, size, 1);
    }

    fn pieces(bencher: Bencher<'_, '_>, size: usize, piece: usize) {
        let bytes = framing::to_bytes(&codec::frame(size));
        let mut buffer = BytesMut::new();
        bencher
            .counter(BytesCount::new(size))
            .bench_local(|| codec::decode(&mut buffer, &bytes, piece));
    }
}

mod handshake {
    use super::*;
    use labsh_bench::handshake;
    use labsh_proto::key::HostKey;

    fn pair() -> HostKey {
        handshake::key().expect("a key").for_host(&handshake::host().expect("a host"))
    }

    #[divan::bench]
    fn key_schedule(bencher: Bencher<'_, '_>) {
        let (key, host) = (handshake::key().expect("a key"), handshake::host().expect("a host"));
        bencher.bench(|| handshake::key_schedule(&key, &host));
    }

    #[divan::bench]
    fn plain(bencher: Bencher<'_, '_>) {
        let (pair, dummy) = (pair(), handshake::dummy());
        bencher.bench(|| handshake::plain(&pair, &dummy).expect("a welcome"));
    }

    #[divan::bench]
    fn tls(bencher: Bencher<'_, '_>) {
        let (pair, dummy) = (pair(), handshake::dummy());
        let acceptor = handshake::acceptor(&pair).expect("an acceptor");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        bencher.bench_local(|| {
            runtime.block_on(handshake::tls(&acceptor, &pair, &dummy)).expect("a welcome");
        });
    }
}

mod sets {
    use super::*;
    use labsh_bench::sets;

    const SIZES: [usize; 2] = [1_000, 100_000];

    #[divan::bench(args = SIZES)]
    fn parse(bencher: Bencher<'_, '_>, hosts: usize) {
        let expression = sets::expression(hosts);
        bencher.bench(|| sets::parse(&expression).expect("a set"));
    }

    #[divan::bench(args = SIZES)]
    fn fold(bencher: Bencher<'_, '_>, hosts: usize) {
        let set = sets::parse(&sets::expression(hosts)).expect("a set");
        bencher.bench(|| set.to_string());
    }

    #[divan::bench(args = SIZES)]
    fn union(bencher: Bencher<'_, '_>, hosts: usize) {
        let [odd, even] = sets::halves(hosts).expect("two sets");
        bencher
            .with_inputs(|| (odd.clone(), even.clone()))
            .bench_values(|(odd, even)| odd.union(even));
    }
}
