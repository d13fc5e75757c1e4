package io.casemate.spark;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.fs.BlockLocation;

/** Where the plaintext of a file lies, for splits and locality. */
final class Blocks {
  private Blocks() {}

  /**
   * The blocks that a plain file of {@code length} bytes would have, as far as they touch {@code start} to {@code end}:
   * engines cut files at their boundaries, and should cut an encrypted one into as many tasks. Each has the hosts of the
   * stored block that holds its middle: by a four-thousandth longer, stored bytes drift away from the plaintext slowly.
   *
   * @param stored all blocks of the stored file, in order
   */
  static BlockLocation[] ofPlaintext(BlockLocation[] stored, long length, long start, long end) throws IOException {
    List<BlockLocation> blocks = new ArrayList<>();
    long size = stored.length > 1 ? stored[0].getLength() : length;
    for (long from = size == 0 ? length : start / size * size; from < Math.min(length, end); from += size) {
      long to = stored.length > 1 ? Math.min(from + size, length) : length;
      long middle = SegmentCipher.storedPosition(from + (to - from) / 2);
      BlockLocation holder = stored[stored.length - 1];
      for (BlockLocation block : stored) {
        if (middle < block.getOffset() + block.getLength()) {
          holder = block;
          break;
        }
      }
      BlockLocation block = new BlockLocation(holder);
      block.setOffset(from);
      block.setLength(to - from);
      blocks.add(block);
    }
    return blocks.toArray(new BlockLocation[0]);
  }
}
