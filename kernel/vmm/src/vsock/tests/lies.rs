//! Guests that break the rules: of one stream, or of the queues.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::client::Client;
use super::guest::{CID, Guest, MEMORY_BYTES, Ports, packet, pattern};
use super::ring::{INDIRECT, NEXT, Ring, WRITE};
use crate::vsock::Broken;
use crate::vsock::header::Header;
use crate::vsock::spec::*;

fn connected() -> (Guest, Client, Ports) {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    let ports = *guest.ends.keys().next().unwrap();
    guest.seen.clear();
    (guest, client, ports)
}

fn data(ports: Ports, len: u32) -> Header {
    Header {
        op: OP_RW,
        len,
        buf_alloc: 1 << 18,
        ..packet(ports)
    }
}

/// The stream is over, with one RST.
fn assert_reset(guest: &mut Guest, client: &mut Client) {
    guest.run(&mut [client]);
    assert!(client.ended);
    assert!(guest.end(1).reset);
    assert_eq!(guest.count_seen(OP_RST), 1);
    assert!(guest.device.quiet());
}

#[test]
fn more_than_the_credit_resets_the_stream() {
    let (mut guest, mut client, ports) = connected();
    client.reads = false;
    for _ in 0..32 {
        guest.put(&data(ports, 64 << 10), &pattern(1, 64 << 10));
        guest
            .device
            .transmit(&guest.memory, &mut guest.tx.queue)
            .unwrap();
        assert!(guest.device.held_bytes() <= 256 << 10);
    }
    client.reads = true;
    guest.run(&mut [&mut client]);
    assert!(client.ended);
    assert!(guest.end(1).reset);
    assert_eq!(guest.device.held_bytes(), 0);
}

#[test]
fn a_length_without_its_bytes_resets_the_stream() {
    for len in [101, 65_537, u32::MAX] {
        let (mut guest, mut client, ports) = connected();
        guest.put(&data(ports, len), &[7; 100]);
        assert_reset(&mut guest, &mut client);
        assert_eq!(client.received, b"");
    }
}

#[test]
fn more_bytes_than_the_length_are_ignored() {
    let (mut guest, mut client, ports) = connected();
    guest.put(&data(ports, 3), b"abcdef");
    guest.run(&mut [&mut client]);
    assert_eq!(client.received, b"abc");
}

#[test]
fn packets_out_of_order_reset_the_stream() {
    for op in [0, OP_REQUEST, OP_RESPONSE, 8, u16::MAX] {
        let (mut guest, mut client, ports) = connected();
        guest.put(
            &Header {
                op,
                ..packet(ports)
            },
            &[],
        );
        assert_reset(&mut guest, &mut client);
    }
    let (mut guest, mut client, ports) = connected();
    client.reads = false;
    let end = Header {
        op: OP_SHUTDOWN,
        flags: SHUTDOWN_SEND,
        ..packet(ports)
    };
    guest.put(&end, &[]);
    guest.put(&data(ports, 1), b"x");
    client.reads = true;
    assert_reset(&mut guest, &mut client);
    assert_eq!(client.received, b"");
}

#[test]
fn data_before_the_acceptance_resets_the_stream() {
    let mut guest = Guest::up(&[1]);
    guest.silent = true;
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    let host_port = guest.device.save().resets[0].1;
    guest.put(&data((1, host_port), 1), b"x");
    guest.run(&mut [&mut client]);
    assert!(client.ended);
    assert_eq!(client.received, b"");
}

#[test]
fn a_window_that_shrinks_or_lies_only_stops_its_stream() {
    let (mut guest, mut client, ports) = connected();
    for (buf_alloc, fwd_cnt) in [(0, 0), (1, u32::MAX), (100, 1 << 31)] {
        let update = Header {
            op: OP_CREDIT_UPDATE,
            buf_alloc,
            fwd_cnt,
            ..packet(ports)
        };
        guest.put(&update, &[]);
        client.send(&[1; 1000]);
        guest.run(&mut [&mut client]);
    }
    assert!(!client.ended);
}

#[test]
fn strangers_are_refused_once_each_and_within_bounds() {
    let mut guest = Guest::up(&[]);
    let other_host = Header {
        op: OP_REQUEST,
        dst_cid: 77,
        ..packet((5, 6))
    };
    let other_type = Header {
        op: OP_RW,
        kind: 2,
        ..packet((5, 6))
    };
    let other_guest = Header {
        op: OP_REQUEST,
        src_cid: 99,
        ..packet((5, 6))
    };
    for header in [other_host, other_type, other_guest] {
        guest.put(&header, &[]);
    }
    guest.run(&mut []);
    let answers: Vec<_> = guest
        .seen
        .iter()
        .map(|h| (h.op, h.src_cid, h.kind))
        .collect();
    assert_eq!(answers, [(OP_RST, 77, 1), (OP_RST, HOST_CID, 2)]);

    // A RST is never answered, and a flood without receive buffers is forgotten.
    guest.seen.clear();
    guest.silent = true;
    for round in 0..200 {
        for slot in 0..20 {
            let ports = (round, slot);
            guest.put(&data(ports, 0), &[]);
            guest.put(
                &Header {
                    op: OP_RST,
                    ..packet(ports)
                },
                &[],
            );
            guest.step(&mut []).unwrap();
        }
    }
    assert_eq!(guest.device.held_packets(), 1024);
    assert!(guest.device.save().encode().len() < 32 << 10);
    guest.silent = false;
    guest.run(&mut []);
    assert!(guest.device.quiet());
}

#[test]
fn a_packet_to_another_host_does_not_wake() {
    let mut guest = Guest::booting(&[]);
    let request = Header {
        op: OP_REQUEST,
        dst_cid: 1,
        ..packet((5, 6))
    };
    guest.put(&request, &[]);
    guest.run(&mut []);
    assert!(!guest.device.save().awake);
}

const AT: u64 = 0x30_0000;

/// Offers one transmit chain of these descriptors and says what came of it.
fn transmit(descriptors: &[Descriptor]) -> Result<bool, Broken> {
    let mut guest = Guest::up(&[]);
    for (index, descriptor) in (64..).zip(descriptors) {
        guest.tx.describe(&guest.memory, index, *descriptor);
    }
    guest.tx.offer(&guest.memory, 64);
    guest.device.transmit(&guest.memory, &mut guest.tx.queue)
}

fn receive(descriptors: &[Descriptor]) -> Result<bool, Broken> {
    let mut guest = Guest::booting(&[9]);
    let mut ring = Ring::new(0x2_0000);
    guest.put(
        &Header {
            op: OP_REQUEST,
            ..packet((5, 6))
        },
        &[],
    );
    guest
        .device
        .transmit(&guest.memory, &mut guest.tx.queue)
        .unwrap();
    for (index, descriptor) in (64..).zip(descriptors) {
        ring.describe(&guest.memory, index, *descriptor);
    }
    ring.offer(&guest.memory, 64);
    guest.device.receive(&guest.memory, &mut ring.queue)
}

fn assert_chain(result: Result<bool, Broken>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn chains_that_are_no_packets_end_the_machine() {
    let end = MEMORY_BYTES as u64;
    assert!(transmit(&[Descriptor::new(AT, 44, 0, 0)]).unwrap());
    assert_chain(transmit(&[Descriptor::new(AT, 43, 0, 0)]), "too short");
    assert_chain(transmit(&[Descriptor::new(AT, 0, 0, 0)]), "too short");
    assert_chain(transmit(&[Descriptor::new(AT, 44, WRITE, 0)]), "writing");
    for at in [end - 43, end, u64::MAX - 20, u64::MAX] {
        assert_chain(transmit(&[Descriptor::new(at, 44, 0, 0)]), "outside");
    }
    let looping = [
        Descriptor::new(AT, 44, NEXT, 65),
        Descriptor::new(AT, 44, NEXT, 64),
    ];
    assert_chain(transmit(&looping), "too many");
    assert_chain(transmit(&[Descriptor::new(AT, 44, NEXT, 128)]), "leaves");
    let mixed = [
        Descriptor::new(AT, 44, NEXT, 65),
        Descriptor::new(AT, 44, WRITE, 0),
    ];
    assert_chain(transmit(&mixed), "writing");
    let overflow = [
        Descriptor::new(AT, u32::MAX, NEXT, 65),
        Descriptor::new(AT, 44, 0, 0),
    ];
    assert_chain(transmit(&overflow), "leaves");
    // A table in a table, and one that is none.
    let nested = Descriptor::new(AT, 16, INDIRECT, 0);
    assert_chain(transmit(&[nested]), "too short");
    assert_chain(transmit(&[Descriptor::new(AT, 17, INDIRECT, 0)]), "first");
}

#[test]
fn payloads_may_be_cut_anywhere() {
    let (mut guest, mut client, ports) = connected();
    let payload = pattern(3, 3000);
    let header = data(ports, 3000).encode();
    let bytes = [&header[..], &payload].concat();
    guest.memory.write_slice(&bytes, GuestAddress(AT)).unwrap();
    // One indirect table: a header with some data, then three fragments.
    let cuts = [0, 50, 51, 2000, bytes.len() as u64];
    let table = AT + 0x1_0000;
    for (index, cut) in (0_u16..).zip(cuts.windows(2)) {
        let len = u32::try_from(cut[1] - cut[0]).unwrap();
        let flags = if index < 3 { NEXT } else { 0 };
        let descriptor = Descriptor::new(AT + cut[0], len, flags, index + 1);
        let raw = virtio_queue::desc::RawDescriptor::from(descriptor);
        let at = GuestAddress(table + 16 * u64::from(index));
        guest.memory.write_obj(raw, at).unwrap();
    }
    let head = Descriptor::new(table, 64, INDIRECT, 0);
    guest.tx.describe(&guest.memory, 100, head);
    guest.tx.offer(&guest.memory, 100);
    guest
        .device
        .transmit(&guest.memory, &mut guest.tx.queue)
        .unwrap();
    client.pump();
    assert!(client.received == payload);
}

#[test]
fn buffers_that_take_no_packet_end_the_machine() {
    let end = MEMORY_BYTES as u64;
    assert!(receive(&[Descriptor::new(AT, 4096, WRITE, 0)]).unwrap());
    for bad in [
        Descriptor::new(AT, 4096, 0, 0),
        Descriptor::new(AT, 43, WRITE, 0),
        Descriptor::new(AT, 44, WRITE, 0),
        Descriptor::new(end - 44, 4096, WRITE, 0),
        Descriptor::new(u64::MAX - 3, 4096, WRITE, 0),
        Descriptor::new(AT, 44, WRITE | NEXT, 500),
    ] {
        assert!(matches!(receive(&[bad]), Err(Broken::Buffer { .. })));
    }
    let mixed = [
        Descriptor::new(AT, 44, WRITE | NEXT, 65),
        Descriptor::new(AT, 44, 0, 0),
    ];
    assert!(matches!(receive(&mixed), Err(Broken::Buffer { .. })));
}

#[test]
fn a_buffer_without_room_for_data_ends_the_machine() {
    let (mut guest, mut client, _) = connected();
    client.send(b"x");
    client.pump();
    guest.device.on_host();
    let mut ring = Ring::new(0x2_0000);
    ring.describe(&guest.memory, 1, Descriptor::new(AT, 44, WRITE | NEXT, 2));
    ring.describe(&guest.memory, 2, Descriptor::new(AT, 0, WRITE, 0));
    ring.offer(&guest.memory, 1);
    let result = guest.device.receive(&guest.memory, &mut ring.queue);
    assert!(matches!(result, Err(Broken::NoRoom)));
}

#[test]
fn rings_that_contradict_themselves_end_the_machine() {
    let mut guest = Guest::up(&[]);
    guest.tx.set_index(&guest.memory, 0x8000);
    let result = guest.device.transmit(&guest.memory, &mut guest.tx.queue);
    assert!(matches!(
        result,
        Err(Broken::Ring {
            queue: "transmit",
            ..
        })
    ));

    let mut ring = Ring::new(0x2_0000);
    ring.offer(&guest.memory, 128);
    let result = guest.device.transmit(&guest.memory, &mut ring.queue);
    assert_chain(result, "no first");

    let mut outside = Ring::new(0xffff_0000);
    let result = guest.device.receive(&guest.memory, &mut outside.queue);
    assert!(matches!(result, Err(Broken::Rings { queue: "receive" })));
}

#[test]
fn a_queue_that_is_not_set_up_is_left_alone() {
    let mut guest = Guest::up(&[9]);
    let _client = guest.connect(9);
    let mut queue: virtio_queue::Queue = virtio_queue::QueueT::new(16).unwrap();
    assert!(!guest.device.transmit(&guest.memory, &mut queue).unwrap());
    assert!(!guest.device.receive(&guest.memory, &mut queue).unwrap());
    assert_eq!(guest.device.config()[0], u8::try_from(CID).unwrap());
}

#[test]
fn written_pages_are_marked() {
    use std::ops::Deref;

    use vm_memory::GuestMemoryBackend;
    use vm_memory::bitmap::Bitmap;
    let (mut guest, mut client, _) = connected();
    let region = guest.memory.iter().next().unwrap();
    region.deref().bitmap().reset();
    client.send(b"x");
    client.pump();
    guest.device.on_host();
    guest
        .device
        .receive(&guest.memory, &mut guest.rx.queue)
        .unwrap();
    let region = guest.memory.iter().next().unwrap();
    let dirty: Vec<usize> = (0..MEMORY_BYTES / 4096)
        .filter(|page| region.deref().bitmap().dirty_at(page * 4096))
        .collect();
    // The used ring, and the two pages of a buffer that begins one and ends in the next.
    assert!(dirty.contains(&5), "{dirty:?}");
    assert!(dirty.iter().any(|page| *page >= 0x100), "{dirty:?}");
    assert!(dirty.len() <= 3, "{dirty:?}");
}
