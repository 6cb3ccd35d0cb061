import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Kafka's tools one after another in one process: a line of JSON with the class and its
 * arguments comes in, a line with exit code and output goes out. Starting a process for each would cost a second.
 */
public class ToolRunner {
    private static volatile CompletableFuture<Integer> ended;

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        ObjectMapper json = new ObjectMapper();
        Exit.setExitProcedure((code, message) -> stop(code));
        Exit.setHaltProcedure((code, message) -> stop(code));
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            JsonNode request = json.readTree(line);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(err, true));
            ended = new CompletableFuture<>();
            Thread tool = new Thread(() -> run(request));
            tool.setDaemon(true);
            tool.start();
            int code = ended.get(120, TimeUnit.SECONDS);
            answers.println(json.writeValueAsString(
                Map.of("code", code, "out", out.toString(), "err", err.toString())));
            answers.flush();
        }
        System.exit(0);
    }

    private static void run(JsonNode request) {
        try {
            String[] arguments = new String[request.get("arguments").size()];
            for (int i = 0; i < arguments.length; i++) {
                arguments[i] = request.get("arguments").get(i).asText();
            }
            Class<?> tool = Class.forName(request.get("class").asText());
            tool.getMethod("main", String[].class).invoke(null, (Object) arguments);
            ended.complete(0);
        } catch (InvocationTargetException error) {
            // As the Java launcher does for what main throws.
            error.getCause().printStackTrace();
            ended.complete(1);
        } catch (ReflectiveOperationException error) {
            error.printStackTrace();
            ended.complete(-1);
        }
    }

    /** The first exit counts, and as with a real one nothing of the tool runs after it. */
    private static void stop(int code) {
        ended.complete(code);
        try {
            Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
