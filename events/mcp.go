package events

var mcpFamily = family{"mcp", []fields{
	MCPConnectionStarted{},
	MCPConnectionCompleted{},
	MCPConnectionFailed{},
	MCPToolExecutionStarted{},
	MCPToolExecutionCompleted{},
	MCPToolExecutionFailed{},
	MCPConfigFetchFailed{},
}}

// MCPServer is the part that the events of an MCP server share.
type MCPServer struct {
	ServerName string `json:"server_name"`
	ServerURL  Text   `json:"server_url"`
	// TransportType is stdio, http or sse.
	TransportType Text `json:"transport_type"`
}

// MCPTool is the part that the events of a tool of an MCP server share.
type MCPTool struct {
	MCPServer
	// ToolName is the server's own name of the tool.
	ToolName string         `json:"tool_name"`
	ToolArgs map[string]any `json:"tool_args"`
}

// MCPConnectionStarted is told when an MCP server is about to be connected.
type MCPConnectionStarted struct {
	MCPServer
	// ConnectTimeout is in seconds.
	ConnectTimeout *int `json:"connect_timeout"`
	IsReconnect    bool `json:"is_reconnect"`
}

func (MCPConnectionStarted) kind() Kind {
	return Kind{Type: "mcp_connection_started", Opens: "mcp_connection"}
}

// NewMCPConnectionStarted drafts mcp_connection_started.
func NewMCPConnectionStarted(who Identity, f MCPConnectionStarted) Draft { return draft(who, f) }

// MCPConnectionCompleted is told when an MCP server is connected.
type MCPConnectionCompleted struct {
	MCPServer
	StartedAt   *Time `json:"started_at"`
	CompletedAt *Time `json:"completed_at"`
	// ConnectionDurationMS is in milliseconds.
	ConnectionDurationMS *float64 `json:"connection_duration_ms"`
	IsReconnect          bool     `json:"is_reconnect"`
}

func (MCPConnectionCompleted) kind() Kind {
	return Kind{Type: "mcp_connection_completed", Closes: "mcp_connection"}
}

// NewMCPConnectionCompleted drafts mcp_connection_completed.
func NewMCPConnectionCompleted(who Identity, f MCPConnectionCompleted) Draft { return draft(who, f) }

// MCPConnectionFailed is told when an MCP server cannot be connected.
type MCPConnectionFailed struct {
	MCPServer
	// Error is a sentence for people.
	Error string `json:"error"`
	// ErrorType is timeout, authentication, network, import_error or cancelled.
	ErrorType Text  `json:"error_type"`
	StartedAt *Time `json:"started_at"`
	FailedAt  *Time `json:"failed_at"`
}

func (MCPConnectionFailed) kind() Kind {
	return Kind{Type: "mcp_connection_failed", Closes: "mcp_connection"}
}

// NewMCPConnectionFailed drafts mcp_connection_failed.
func NewMCPConnectionFailed(who Identity, f MCPConnectionFailed) Draft { return draft(who, f) }

// MCPToolExecutionStarted is told when a tool of an MCP server is about to be called.
type MCPToolExecutionStarted struct {
	MCPTool
}

func (MCPToolExecutionStarted) kind() Kind {
	return Kind{Type: "mcp_tool_execution_started", Opens: "mcp_tool_execution"}
}

// NewMCPToolExecutionStarted drafts mcp_tool_execution_started.
func NewMCPToolExecutionStarted(who Identity, f MCPToolExecutionStarted) Draft { return draft(who, f) }

// MCPToolExecutionCompleted is told when a tool of an MCP server has answered.
type MCPToolExecutionCompleted struct {
	MCPTool
	Result      any   `json:"result"`
	StartedAt   *Time `json:"started_at"`
	CompletedAt *Time `json:"completed_at"`
	// ExecutionDurationMS is in milliseconds.
	ExecutionDurationMS *float64 `json:"execution_duration_ms"`
}

func (MCPToolExecutionCompleted) kind() Kind {
	return Kind{Type: "mcp_tool_execution_completed", Closes: "mcp_tool_execution"}
}

// NewMCPToolExecutionCompleted drafts mcp_tool_execution_completed.
func NewMCPToolExecutionCompleted(who Identity, f MCPToolExecutionCompleted) Draft {
	return draft(who, f)
}

// MCPToolExecutionFailed is told when a tool of an MCP server fails.
type MCPToolExecutionFailed struct {
	MCPTool
	// Error is a sentence for people.
	Error string `json:"error"`
	// ErrorType is timeout, server_error or tool_error.
	ErrorType Text  `json:"error_type"`
	StartedAt *Time `json:"started_at"`
	FailedAt  *Time `json:"failed_at"`
}

func (MCPToolExecutionFailed) kind() Kind {
	return Kind{Type: "mcp_tool_execution_failed", Closes: "mcp_tool_execution"}
}

// NewMCPToolExecutionFailed drafts mcp_tool_execution_failed.
func NewMCPToolExecutionFailed(who Identity, f MCPToolExecutionFailed) Draft { return draft(who, f) }

// MCPConfigFetchFailed is told when the settings of an MCP server cannot be had.
type MCPConfigFetchFailed struct {
	// Slug is the server's name in the catalogue of servers.
	Slug string `json:"slug"`
	// Error is a sentence for people.
	Error string `json:"error"`
	// ErrorType is not_connected, api_error or connection_failed.
	ErrorType Text `json:"error_type"`
}

func (MCPConfigFetchFailed) kind() Kind {
	return Kind{Type: "mcp_config_fetch_failed"}
}

// NewMCPConfigFetchFailed drafts mcp_config_fetch_failed.
func NewMCPConfigFetchFailed(who Identity, f MCPConfigFetchFailed) Draft { return draft(who, f) }
