import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.FileInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** A small web service on the JVM: one page, rendered from a template, with numbers of two generators. */
public final class Service {
  private static final String TEMPLATE = """
      <!doctype html>
      <title>{{title}}</title>
      <dl><dt>host<dd id=host>{{host}}<dt>generator<dd id=generator>{{generator}}<dt>kernel<dd id=kernel>{{kernel}}</dl>
      <ul>{{items}}</ul>
      """;
  private static final String ITEM = "<li class={{parity}}>{{number}} squared is {{square}}</li>";
  private static final Pattern NAME = Pattern.compile("\\{\\{(\\w+)}}");
  private static final Path HOST = Path.of("/proc/sys/kernel/hostname");
  /** Seeded once, when the process starts. */
  private static final Random GENERATOR = new Random();

  public static void main(String[] arguments) throws IOException {
    int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
    HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", port), 0);
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext("/", Service::answer);
    server.start();
  }

  private static void answer(HttpExchange exchange) throws IOException {
    boolean isRoot = exchange.getRequestURI().getPath().equals("/");
    byte[] body = (isRoot ? page() : "not found\n").getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("content-type", "text/html");
    exchange.getResponseHeaders().set("connection", "close");
    exchange.sendResponseHeaders(isRoot ? 200 : 404, body.length);
    exchange.getResponseBody().write(body);
    exchange.close();
  }

  private static String page() throws IOException {
    String items = IntStream.range(0, 10)
        .mapToObj(number -> render(ITEM, Map.of(
            "number", number, "square", number * number, "parity", number % 2 == 0 ? "even" : "odd")))
        .collect(Collectors.joining("\n"));
    return render(TEMPLATE, Map.of(
        "title", "A service",
        "host", Files.readString(HOST).strip(),
        "generator", Long.toHexString(GENERATOR.nextLong()),
        "kernel", kernelRandom(),
        "items", items));
  }

  private static String render(String template, Map<String, Object> values) {
    return NAME.matcher(template).replaceAll(found -> String.valueOf(values.get(found.group(1))));
  }

  private static String kernelRandom() throws IOException {
    try (FileInputStream random = new FileInputStream("/dev/urandom")) {
      return HexFormat.of().formatHex(random.readNBytes(8));
    }
  }
}
