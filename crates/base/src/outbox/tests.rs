use super::*;

fn outbox(control: usize, data: usize) -> Outbox {
    Outbox::new(control, data, Total::new(1_000_000))
}

/// Frames that fill their block.
fn row(bytes: impl Into<Bytes>) -> Frames {
    let bytes = bytes.into();
    Frames { block: bytes.len(), bytes }
}

#[tokio::test]
async fn all_together_have_a_limit_too_and_what_was_written_or_given_up_makes_room() {
    let all = Total::new(10);
    let [a, b] = [(); 2].map(|()| Outbox::new(100, 100, Arc::clone(&all)));
    a.data([b"12", b"34"]).unwrap();
    b.data([b"1", b"234"]).unwrap();
    assert!(a.data([b"56", b"7"]).is_err());
    assert_eq!(b.data_frames(&row(&[0, 1, 1, 0, 1, 1][..])).bytes, 0);
    a.control(b"never dropped").unwrap();
    assert_eq!(all.bytes(), 21);
    let mut batch = Batch::default();
    a.next(&mut batch).await;
    assert_eq!(all.bytes(), 21, "it is not written yet");
    a.end(End::Flushed);
    a.next(&mut batch).await;
    assert_eq!(all.bytes(), 4);
    drop((a, b));
    assert_eq!(all.bytes(), 0);
}

#[tokio::test]
async fn everything_that_waits_is_one_batch_control_first() {
    let outbox = outbox(10, 10);
    outbox.data([b"da", b"ta"]).unwrap();
    outbox.control(b"con").unwrap();
    outbox.control(b"trol").unwrap();
    outbox.end(End::Flushed);
    let mut batch = Batch::default();
    outbox.next(&mut batch).await;
    let data: Vec<&[u8]> = batch.data.iter().collect();
    assert_eq!((&batch.control[..], &data[..]), (&b"control"[..], &[&b"data"[..]][..]));
    assert_eq!(batch.end, End::Flushed);
}

#[tokio::test]
async fn what_is_left_of_a_batch_begins_where_the_last_write_ended() {
    let outbox = outbox(10, 4 * BULK);
    let long = vec![7; BULK];
    outbox.control(b"con").unwrap();
    outbox.data([b"da", b"ta"]).unwrap();
    outbox.data_frames(&row([&[0xff, 0xff][..], &long[2..]].concat()));
    let mut batch = Batch::default();
    outbox.next(&mut batch).await;
    let whole = [&b"condata"[..], &[0xff, 0xff], &long[2..]].concat();
    assert_eq!(batch.len(), whole.len());
    for (skip, most) in [(0, 16), (0, 1), (2, 16), (3, 16), (5, 1), (7, 16), (whole.len(), 16)] {
        let mut slices = [IoSlice::new(&[]); 16];
        let count = batch.pieces_after(skip, &mut slices[..most]);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(whole[skip..].starts_with(&bytes) && (count == most || bytes.len() == whole.len() - skip));
        assert_eq!(count == 0, skip == whole.len());
    }
}

#[tokio::test]
async fn who_has_the_turn_writes_past_the_queue_and_what_he_began_goes_first() {
    let outbox = outbox(100, 8);
    let frames = row(&[0, 2, 1, 1, 0, 2, 2, 2, 0, 2, 3, 3, 0, 2, 4, 4][..]);
    let turn = outbox.turn().unwrap();
    assert!(outbox.turn().is_none(), "one at a time");
    outbox.control(b"con").unwrap();
    outbox.data([b"", b"data"]).unwrap();
    // The first frame and a half have been written; there is room for one more after what came meanwhile.
    assert_eq!(turn.end(&frames, 6), Joined { bytes: 12, crowded: false });
    assert!(outbox.turn().is_none(), "something waits");
    let mut batch = Batch::default();
    outbox.next(&mut batch).await;
    let data: Vec<&[u8]> = batch.data.iter().collect();
    assert_eq!((&batch.control[..], data.concat()), (&b"\x02\x02con"[..], b"data\0\x02\x03\x03".to_vec()));
    assert!(outbox.turn().is_none(), "it is being written");
    let idle = timeout(Duration::ZERO, outbox.next(&mut batch)).await;
    assert!(idle.is_err() && outbox.turn().is_some(), "all is written");
    outbox.end(End::Flushed);
    assert!(outbox.turn().is_none(), "the connection ends");
}

#[tokio::test(start_paused = true)]
async fn a_bulk_sender_waits_until_all_is_written_or_once_in_vain_and_nobody_else_does() {
    const PATIENCE: Duration = Duration::from_millis(10);
    let outbox = outbox(4, 8 * BULK);
    let long = row([&[0x40, 0x00][..], &[7; 0x4000]].concat().repeat(3));
    let short = row(&[0, 1, 1][..]);
    assert!(!outbox.data_frames(&short).crowded);
    assert!(outbox.data_frames(&long).crowded);
    assert!(!outbox.data_frames(&short).crowded, "he sends to many");
    let (start, mut batch) = (tokio::time::Instant::now(), Batch::default());
    outbox.next(&mut batch).await;
    let written = async { outbox.next(&mut batch).await };
    tokio::select! { biased; moved = outbox.room(Duration::from_secs(1)) => assert!(moved), () = written => {} }
    assert!(start.elapsed().is_zero(), "it was written");

    assert!(outbox.data_frames(&long).crowded);
    assert!(!outbox.room(PATIENCE).await);
    assert!(start.elapsed() >= PATIENCE);
    assert!(!outbox.data_frames(&long).crowded, "nobody waits again");
    outbox.next(&mut batch).await;
    outbox.data_frames(&short);
    outbox.next(&mut batch).await;
    assert!(outbox.data_frames(&long).crowded, "something was written");
}

#[tokio::test]
async fn what_waits_beside_a_queue_joins_it_in_order_counts_and_is_not_kept_when_memory_is_short() {
    let all = Total::new(20);
    let outbox = Outbox::new(4, 4, Arc::clone(&all));
    let frames = row(&[0, 1, 1, 0, 1, 2, 0, 1, 3][..]);
    let taken = outbox.data_frames(&frames).bytes;
    let (mut waiting, given_back) = outbox.keep(frames.after(taken));
    assert!(given_back.is_none());
    assert_eq!((taken, all.bytes()), (3, 9));
    assert!(!waiting.join(&outbox), "nothing was written");
    let mut batch = Batch::default();
    for n in 1..=3 {
        outbox.next(&mut batch).await;
        assert_eq!(batch.data.iter().collect::<Vec<_>>().concat(), [0, 1, n]);
        assert_eq!(waiting.join(&outbox), n < 3);
    }
    assert_eq!(all.bytes(), 3, "what is being written");
    let (kept, _) = outbox.keep(frames.clone());
    let (none, given_back) = outbox.keep(frames.clone());
    assert!(none.frames().bytes.is_empty(), "more than half of all would wait");
    assert_eq!(given_back.map(|frames| frames.bytes.len()), Some(9));
    drop((kept, none));
    assert_eq!(all.bytes(), 3);
}

#[tokio::test]
async fn what_waits_beside_a_queue_holds_its_block_only_while_it_is_half_of_it() {
    let outbox = outbox(4, 3);
    let frames = Frames { bytes: Bytes::from([[0, 1, 7]; 6].concat()), block: 18 };
    let at = |frames: &Frames| frames.bytes.as_ptr().addr();
    let (mut waiting, _) = outbox.keep(frames.after(9));
    assert_eq!((at(waiting.frames()), waiting.frames().block), (at(&frames) + 9, 18));
    assert!(waiting.join(&outbox));
    assert_ne!(at(waiting.frames()), at(&frames) + 12);
    assert_eq!((&waiting.frames().bytes[..], waiting.frames().block), (&[0, 1, 7, 0, 1, 7][..], 6));
    let (waiting, _) = outbox.keep(frames.after(12));
    assert_eq!((waiting.frames().bytes.len(), waiting.frames().block), (6, 6));
}

#[tokio::test]
async fn the_writer_waits_while_somebody_has_the_turn() {
    let all = Total::new(1_000);
    let outbox = Outbox::new(100, 100, Arc::clone(&all));
    let turn = outbox.turn().unwrap();
    outbox.control(b"after").unwrap();
    let mut batch = Batch::default();
    let early = timeout(Duration::ZERO, outbox.next(&mut batch)).await;
    assert!(early.is_err());
    turn.end_control(b"pong", 1);
    outbox.next(&mut batch).await;
    assert_eq!((&batch.control[..], all.bytes()), (&b"ongafter"[..], 8));
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let outbox = outbox(4, 4);
    outbox.data([b"ab", b"cd"]).unwrap();
    assert!(outbox.data([b"", b"e"]).is_err());
    assert!(outbox.control(b"abcde").is_err());
    outbox.control(b"abcd").unwrap();
}

#[test]
fn of_frames_in_a_row_those_that_fit_are_taken_whole() {
    let outbox = outbox(4, 10);
    let frames = [0, 2, 1, 1, 0, 2, 2, 2, 0, 2, 3, 3];
    let row = row(frames.to_vec());
    assert_eq!(outbox.data_frames(&row).bytes, 8);
    assert_eq!(outbox.data_frames(&row.after(8)).bytes, 0);
    assert_eq!(outbox.lock().data.iter().collect::<Vec<_>>().concat(), frames[..8]);
}

#[test]
fn long_rows_are_not_copied_and_keep_their_place() {
    let outbox = outbox(4, 4 * BULK);
    let long = Bytes::from([&[0xff, 0xff][..], &[7; BULK]].concat());
    let frame = |n: u8| Frames { block: 64, ..row(vec![0, 1, n]) };
    outbox.data_frames(&frame(1));
    assert_eq!(outbox.data_frames(&row(long.clone())).bytes, long.len());
    outbox.data_frames(&frame(2));
    outbox.data_frames(&frame(3));
    let queue = outbox.lock();
    let pieces: Vec<&[u8]> = queue.data.iter().collect();
    assert_eq!(pieces, [&[0, 1, 1][..], &long, &[0, 1, 2, 0, 1, 3]]);
    assert_eq!(pieces[1].as_ptr(), long.as_ptr());
    assert_eq!(queue.data.len(), long.len() + 9);
}
