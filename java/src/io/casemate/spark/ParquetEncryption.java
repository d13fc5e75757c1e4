package io.casemate.spark;

import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.parquet.crypto.DecryptionKeyRetriever;
import org.apache.parquet.crypto.DecryptionPropertiesFactory;
import org.apache.parquet.crypto.EncryptionPropertiesFactory;
import org.apache.parquet.crypto.FileDecryptionProperties;
import org.apache.parquet.crypto.FileEncryptionProperties;
import org.apache.parquet.crypto.ParquetCryptoRuntimeException;
import org.apache.parquet.crypto.keytools.KeyToolkit;
import org.apache.parquet.crypto.keytools.PropertiesDrivenCryptoFactory;
import org.apache.parquet.hadoop.api.WriteSupport.WriteContext;

/**
 * Decides how each Parquet file is encrypted and decrypted ({@code parquet.crypto.factory.class}): in a zone with column keys
 * as the zone says, whatever the program sets; elsewhere by Parquet's own settings, and without any not at all.
 */
public final class ParquetEncryption implements EncryptionPropertiesFactory, DecryptionPropertiesFactory {
  private static final int KEY_SIZE_BITS = 256;

  private final PropertiesDrivenCryptoFactory parquet = new PropertiesDrivenCryptoFactory();

  /** For Parquet, which makes the instance by name. */
  public ParquetEncryption() {}

  @Override
  public FileEncryptionProperties getFileEncryptionProperties(Configuration conf, Path path, WriteContext context) {
    Configuration own;
    try {
      Place place = place(conf, path);
      ColumnKeys columns = columns(place);
      if (columns == null && !asksForKeys(conf)) {
        return null;
      }
      own = new Configuration(conf);
      if (columns != null) {
        for (String name : conf.getPropsWithPrefix("parquet.encryption.").keySet()) {
          own.unset("parquet.encryption." + name);
        }
        own.set(PropertiesDrivenCryptoFactory.FOOTER_KEY_PROPERTY_NAME, place.zone().dataset());
        own.set(PropertiesDrivenCryptoFactory.COLUMN_KEYS_PROPERTY_NAME,
            columns.keysOf(context.getSchema(), place.location()));
        own.setBoolean(PropertiesDrivenCryptoFactory.COMPLETE_COLUMN_ENCRYPTION_PROPERTY_NAME, true);
        own.setBoolean(PropertiesDrivenCryptoFactory.PLAINTEXT_FOOTER_PROPERTY_NAME, columns.plaintextFooter());
        own.set(PropertiesDrivenCryptoFactory.ENCRYPTION_ALGORITHM_PROPERTY_NAME, columns.algorithm());
        own.setBoolean(KeyToolkit.KEY_MATERIAL_INTERNAL_PROPERTY_NAME, true);
      }
    } catch (RefusedException e) {
      report(e);
      throw new ParquetCryptoRuntimeException(e.getMessage(), e);
    } catch (IOException e) {
      throw new ParquetCryptoRuntimeException(e.getMessage(), e);
    }
    return parquet.getFileEncryptionProperties(withOurKeys(own), path, context);
  }

  @Override
  public FileDecryptionProperties getFileDecryptionProperties(Configuration conf, Path path) {
    ColumnKeys columns;
    try {
      columns = columns(place(conf, path));
    } catch (IOException e) {
      throw new ParquetCryptoRuntimeException(e.getMessage(), e);
    }
    boolean ready = ParquetKeys.class.getName().equals(conf.get(KeyToolkit.KMS_CLIENT_CLASS_PROPERTY_NAME));
    Configuration own = ready ? conf : withOurKeys(new Configuration(conf)); // a copy costs as much as opening a file
    DecryptionKeyRetriever keys = parquet.getFileDecryptionProperties(own, path).getKeyRetriever();
    FileDecryptionProperties.Builder properties = FileDecryptionProperties.builder()
        .withKeyRetriever(metadata -> retrieve(keys, metadata, path, columns));
    return (columns == null ? properties.withPlaintextFilesAllowed() : properties).build();
  }

  private static boolean asksForKeys(Configuration conf) {
    return conf.get(PropertiesDrivenCryptoFactory.UNIFORM_KEY_PROPERTY_NAME) != null
        || conf.get(PropertiesDrivenCryptoFactory.FOOTER_KEY_PROPERTY_NAME) != null
        || conf.get(PropertiesDrivenCryptoFactory.COLUMN_KEYS_PROPERTY_NAME) != null;
  }

  private static byte[] retrieve(DecryptionKeyRetriever keys, byte[] metadata, Path path, ColumnKeys columns) {
    try {
      return keys.getKey(metadata);
    } catch (ParquetKeys.DatasetDeniedException e) {
      String names = columns == null ? "" : columns.columnsOf(e.dataset());
      String what = names.isEmpty() ? "what is encrypted under " + e.dataset() : "column " + names + " of " + e.dataset();
      RefusedException refusal =
          new RefusedException("column-denied", path.toString(), what + " cannot be read: " + e.getMessage());
      report(refusal);
      throw new ColumnDeniedException(refusal);
    }
  }

  private static void report(RefusedException refusal) {
    try {
      Agent.get().report(refusal);
    } catch (AgentException ignored) {
      // the refusal stands whether or not somebody hears of it
    }
  }

  /** Our client for keys whatever the program names; keys of 256 bits and one wrapping unless it says otherwise. */
  private static Configuration withOurKeys(Configuration conf) {
    conf.set(KeyToolkit.KMS_CLIENT_CLASS_PROPERTY_NAME, ParquetKeys.class.getName());
    conf.setIfUnset(KeyToolkit.DATA_KEY_LENGTH_PROPERTY_NAME, String.valueOf(KEY_SIZE_BITS));
    conf.setIfUnset(KeyToolkit.KEK_LENGTH_PROPERTY_NAME, String.valueOf(KEY_SIZE_BITS));
    conf.setIfUnset(KeyToolkit.DOUBLE_WRAPPING_PROPERTY_NAME, "false"); // wrapping is local: it costs no call to save
    return conf;
  }

  private static Place place(Configuration conf, Path path) throws IOException {
    FileSystem system = path.getFileSystem(conf);
    return new Places(Agent.get(), system.getUri().getScheme().equals("file")).locate(system.makeQualified(path));
  }

  private static ColumnKeys columns(Place place) {
    return place.inZone() ? place.zone().columns() : null;
  }
}
