// Does what the first line of its input says; see the folder's README.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Net.Sockets;
using System.Text;

static class Program
{
    static void Write(string folder)
    {
        var path = folder + "/was-here";
        try
        {
            File.WriteAllText(path, "x");
            Console.WriteLine($"WROTE {path}");
        }
        catch (Exception)
        {
            Console.WriteLine($"denied {path}");
        }
    }

    static void Connect(string host, int port)
    {
        try
        {
            using (var client = new TcpClient())
            {
                if (!client.ConnectAsync(host, port).Wait(2000)) throw new TimeoutException();
            }
            Console.WriteLine($"CONNECTED {host}:{port}");
        }
        catch (Exception)
        {
            Console.WriteLine($"denied {host}:{port}");
        }
    }

    static void Start(string program, string arguments)
    {
        Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false });
    }

    static void Fork()
    {
        try
        {
            for (;;) Start("sleep", "1000000");
        }
        catch (Exception)
        {
            Console.WriteLine("refused");
        }
    }

    static void Memory()
    {
        var held = new List<byte[]>();
        for (;;)
        {
            var block = new byte[1 << 22];
            for (var at = 0; at < block.Length; at += 1024) block[at] = 1;
            held.Add(block);
        }
    }

    static int Main()
    {
        var buffer = new MemoryStream();
        Console.OpenStandardInput().CopyTo(buffer);
        var input = buffer.ToArray();
        var end = Array.IndexOf(input, (byte)10);
        var first = Encoding.UTF8.GetString(input, 0, end < 0 ? input.Length : end).Split(' ');
        switch (first[0])
        {
            case "hello": Console.WriteLine("hello"); return 0;
            case "echo":
                using (var output = Console.OpenStandardOutput()) output.Write(input, end + 1, input.Length - end - 1);
                return 0;
            case "exit": return int.Parse(first[1]);
            case "raise": throw new InvalidOperationException("as asked");
            case "spin": for (;;) { }
            case "memory": Memory(); return 0;
            case "fork": Fork(); return 0;
            case "flood":
                var line = string.Concat(Enumerable.Repeat("x", 65535));
                for (;;) Console.WriteLine(line);
            case "write":
                foreach (var folder in new[] { "", "/etc", "/usr", "/home", "/home/user" }) Write(folder);
                return 0;
            case "net":
                Connect("1.1.1.1", 80);
                Connect("127.0.0.1", 22);
                return 0;
            case "child":
                Start("setsid", "sleep 1000000");
                Console.WriteLine("left");
                return 0;
            default: throw new ArgumentException("no such command: " + first[0]);
        }
    }
}
