// The private network: a subnet that the app sends from, one for private endpoints, a fixed address for what leaves it, and the DNS
// zones through which private endpoints are found. Sources are reached by Databricks, not from here.

@description('Name of the virtual network; the other resources are named after it.')
param name string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Address space. It must not overlap with networks that this one is peered with.')
param addressPrefix string

@description('The part that the app sends from. Flex Consumption takes a subnet of its own, /27 or larger; several instances share an address.')
param applicationPrefix string

@description('The part for private endpoints, /27 or larger.')
param endpointPrefix string

@description('Names of the private DNS zones to make; empty where a central team keeps them.')
param zoneNames array

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource outboundAddress 'Microsoft.Network/publicIPAddresses@2024-05-01' = {
  name: '${name}-outbound'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
    publicIPAddressVersion: 'IPv4'
  }
}

// New subnets have no way out by themselves. Databricks and the receivers of alerts are on the internet unless they have private links.
resource outbound 'Microsoft.Network/natGateways@2024-05-01' = {
  name: '${name}-outbound'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    idleTimeoutInMinutes: 4
    publicIpAddresses: [
      {
        id: outboundAddress.id
      }
    ]
  }
}

resource applicationRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${name}-application'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'nothing-comes-in'
        properties: {
          description: 'The app is called through its front end or its private endpoint, never in this subnet.'
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource endpointRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${name}-endpoints'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'https-and-amqp-from-the-network'
        properties: {
          description: 'HTTPS, and AMQP over TLS for Service Bus, from this network and those it is peered with.'
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: 'VirtualNetwork'
          sourcePortRange: '*'
          destinationAddressPrefix: endpointPrefix
          destinationPortRanges: ['443', '5671']
        }
      }
      {
        name: 'nothing-else'
        properties: {
          description: 'Private endpoints offer nothing else.'
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [addressPrefix]
    }
    subnets: [
      {
        name: 'application'
        properties: {
          addressPrefix: applicationPrefix
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: applicationRules.id
          }
          natGateway: {
            id: outbound.id
          }
          delegations: [
            {
              name: 'flex-consumption'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: endpointPrefix
          defaultOutboundAccess: false
          // Without it the security group does not hold for private endpoints.
          privateEndpointNetworkPolicies: 'NetworkSecurityGroupEnabled'
          networkSecurityGroup: {
            id: endpointRules.id
          }
        }
      }
    ]
  }
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [for zoneName in zoneNames: {
  name: zoneName
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (zoneName, index) in zoneNames: {
  parent: zones[index]
  name: name
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: network.id
    }
  }
}]

resource networkDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: network
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

resource addressDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: outboundAddress
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

resource applicationRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: applicationRules
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

resource endpointRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: endpointRules
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

output applicationSubnetId string = '${network.id}/subnets/application'
output endpointSubnetId string = '${network.id}/subnets/endpoints'
output outboundAddress string = outboundAddress.properties.ipAddress
