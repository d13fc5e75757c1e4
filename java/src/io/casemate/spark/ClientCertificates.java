package io.casemate.spark;

import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.security.ProtectionDomain;
import org.apache.xbean.asm9.ClassReader;
import org.apache.xbean.asm9.ClassVisitor;
import org.apache.xbean.asm9.ClassWriter;
import org.apache.xbean.asm9.MethodVisitor;
import org.apache.xbean.asm9.Opcodes;

/**
 * Makes Spark's RPC and shuffle servers demand a client certificate. Spark 4.3 encrypts with {@code spark.ssl.rpc.*} but
 * switches client authentication off in its code, whatever {@code needClientAuth} says; this turns that one constant.
 */
final class ClientCertificates implements ClassFileTransformer {
  private static final String FACTORY = "org.apache.spark.network.ssl.SSLFactory";
  private static final String ENGINE = "javax/net/ssl/SSLEngine";

  private int changed;

  private ClientCertificates() {}

  /** @throws IllegalStateException if this Spark sets the demand in another way than the one place known here */
  static void demand(Instrumentation instrumentation) throws ClassNotFoundException {
    ClientCertificates transformer = new ClientCertificates();
    instrumentation.addTransformer(transformer);
    try {
      Class.forName(FACTORY, false, ClassLoader.getSystemClassLoader());
    } finally {
      instrumentation.removeTransformer(transformer);
    }
    if (transformer.changed != 1) {
      throw new IllegalStateException(FACTORY + " sets client authentication in " + transformer.changed
          + " places, expected 1: this version of Spark cannot be made to demand client certificates");
    }
  }

  @Override
  public byte[] transform(ClassLoader loader, String name, Class<?> type, ProtectionDomain domain, byte[] bytes) {
    if (!FACTORY.replace('.', '/').equals(name)) {
      return null;
    }
    ClassReader reader = new ClassReader(bytes);
    ClassWriter writer = new ClassWriter(reader, 0); // the stack never grows: one constant for another
    reader.accept(new ClassVisitor(Opcodes.ASM9, writer) {
      @Override
      public MethodVisitor visitMethod(int access, String method, String descriptor, String signature, String[] thrown) {
        return new MethodVisitor(Opcodes.ASM9, super.visitMethod(access, method, descriptor, signature, thrown)) {
          @Override
          public void visitMethodInsn(int opcode, String owner, String called, String shape, boolean isInterface) {
            if (owner.equals(ENGINE) && (called.equals("setNeedClientAuth") || called.equals("setWantClientAuth"))) {
              changed++;
              super.visitInsn(Opcodes.POP);
              super.visitInsn(Opcodes.ICONST_1);
              super.visitMethodInsn(opcode, owner, "setNeedClientAuth", shape, isInterface);
            } else {
              super.visitMethodInsn(opcode, owner, called, shape, isInterface);
            }
          }
        };
      }
    }, 0);
    return writer.toByteArray();
  }
}
